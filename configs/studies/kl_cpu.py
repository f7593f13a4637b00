"""The twin of kl.py for two CPU cores: SmolLM2-135M on small sums and products.

    python launch.py --job compare --config studies/kl_cpu.py

Twelve runs of about six minutes.
The paper's column stands beside ours, for the direction: it is of another model and task.
"""

from configs.studies.igrpo_vs_grpo_cpu import twin
from configs.studies.kl import get_study as full
from igrpo_jax.study.config import Study


def get_study() -> Study:
    """Four weights of the KL penalty."""
    return twin(full())
