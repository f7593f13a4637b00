"""The twin of selection.py for two CPU cores: SmolLM2-135M on small sums and products.

    python launch.py --job compare --config studies/selection_cpu.py

Eighteen runs of about six minutes.
The paper's column stands beside ours, for the direction: it is of another model and task.
"""

from configs.studies.igrpo_vs_grpo_cpu import twin
from configs.studies.selection import get_study as full
from igrpo_jax.study.config import Study


def get_study() -> Study:
    """Each rule by which a draft gets into the prompt, and GRPO."""
    return twin(full())
