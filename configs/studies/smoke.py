"""A tiny random model under GRPO and iGRPO, two seeds: every part of a study in minutes on a CPU.

    python launch.py --job compare --config studies/smoke.py

It learns nothing worth knowing. Expect a table of two arms and no difference that the intervals allow.
"""

from dataclasses import replace

from configs.smoke import get_config
from igrpo_jax.study.config import METRICS, Arm, Study


def get_study() -> Study:
    """The smoke test of a study."""
    config = get_config()
    return Study(
        title="GRPO and iGRPO on a tiny random model",
        config=replace(config, train=replace(config.train, export=False)),
        arms={
            "grpo": Arm(label="GRPO", overrides={"algorithm.num_drafts": 0, "algorithm.num_generations": 6}),
            "igrpo": Arm(label="iGRPO"),
        },
        baseline="grpo",
        budget="sampled_completions",
        seeds=(0, 1),
        metrics=(*METRICS, "eval/mean/*@0%"),
    )
