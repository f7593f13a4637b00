"""The twin of completions.py for two CPU cores: SmolLM2-135M on small sums and products.

    python launch.py --job compare --config studies/completions_cpu.py

Twelve runs of three to twenty minutes.
The paper's column stands beside ours, for the direction: it is of another model and task.
"""

from configs.studies.completions import get_study as full
from configs.studies.igrpo_vs_grpo_cpu import twin
from igrpo_jax.study.config import Study


def get_study() -> Study:
    """4, 8, 16 and 32 completions a problem, half of them drafts."""
    return twin(full())
