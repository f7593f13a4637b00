"""The twin of cost.py for two CPU cores: SmolLM2-135M on small sums and products.

    python launch.py --job compare --config studies/cost_cpu.py

Six runs of about six minutes, with nothing beside them.
The paper's column stands beside ours, for the direction: it is of another model and task.
"""

from configs.studies.cost import get_study as full
from configs.studies.igrpo_vs_grpo_cpu import twin
from igrpo_jax.study.config import Study


def get_study() -> Study:
    """GRPO with 8 completions a problem, iGRPO with 4 + 4."""
    return twin(full())
