"""Drawing completions of prompts; `sampler` is where to begin reading."""
