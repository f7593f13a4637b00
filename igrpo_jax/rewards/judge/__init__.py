"""The reward `judge`: another model, behind an OpenAI-compatible endpoint, says how good a completion is."""

from igrpo_jax.rewards.judge.judge import Judge, load_judge

__all__ = ["Judge", "load_judge"]
