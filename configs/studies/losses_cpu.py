"""The twin of losses.py for two CPU cores: SmolLM2-135M on small sums and products.

    python launch.py --job compare --config studies/losses_cpu.py

Thirty runs of about six minutes.
The paper's column stands beside ours, for the direction: it is of another model and task.
"""

from configs.studies.igrpo_vs_grpo_cpu import twin
from configs.studies.losses import get_study as full
from igrpo_jax.study.config import Study


def get_study() -> Study:
    """Five losses, without and with drafts."""
    return twin(full())
