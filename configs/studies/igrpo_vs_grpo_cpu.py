"""The twin of igrpo_vs_grpo.py for two CPU cores: SmolLM2-135M on small sums and products.

    python launch.py --job compare --config studies/igrpo_vs_grpo_cpu.py

Six runs of about six minutes.
The paper's column stands beside ours, for the direction: it is of another model and task.
"""

from dataclasses import replace

from configs.quickstart import get_config
from configs.studies.igrpo_vs_grpo import get_study as full
from igrpo_jax.config import Config
from igrpo_jax.study.config import Study


def small() -> Config:
    """What the twins share: the demo with the paper's objective, refinements alone being trained on."""
    config = get_config()
    return replace(
        config,
        algorithm=replace(config.algorithm, draft_weight=0.0),
        train=replace(config.train, keep=1, export=False),
    )


def twin(study: Study) -> Study:
    """The same arms on the small model."""
    return replace(study, title=f"{study.title} (SmolLM2-135M, sums and products)", config=small())


def get_study() -> Study:
    """GRPO with 8 completions a problem, iGRPO with 4 + 4."""
    return twin(full())
