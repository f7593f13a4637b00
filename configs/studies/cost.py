"""What does iGRPO cost beside GRPO at equal sampled completions? (arXiv 2602.09000, the table of costs)

    python launch.py --job compare --config studies/cost.py --mesh 8x1

The paper counts 54.9286 and 54.9349 GB, 0.41 and 0.34 samples a second, 83.3 and 94.1 hours of 16 A100-80GB. Here half
as many completions are trained on, a prompt is computed once a group, and the stages overlap, so that a step of iGRPO
should cost less. Run it with nothing beside it. Not yet run by us. A twin for two CPU cores: `cost_cpu.py`.
"""

from configs.studies.igrpo_vs_grpo import GRPO, base
from igrpo_jax.study.config import Arm, Study


def get_study() -> Study:
    """GRPO with 8 completions a problem, iGRPO with 4 + 4."""
    grpo = {"cost/peak_gb": 54.9286, "cost/completions_per_s": 0.41, "cost/hours": 83.3 / 16}
    igrpo = {"cost/peak_gb": 54.9349, "cost/completions_per_s": 0.34, "cost/hours": 94.1 / 16}
    phases = ("draft", "refine", "wait", "grade", "update")
    return Study(
        title="What GRPO and iGRPO cost",
        config=base(),
        arms={
            "grpo": Arm(label="GRPO", overrides=GRPO, paper=grpo),
            "igrpo": Arm(label="iGRPO", paper=igrpo),
        },
        baseline="grpo",
        metrics=(
            *("cost/peak_gb", "cost/completions_per_s", "cost/tokens_per_s", "cost/hours", "cost/step_s"),
            *("eval/mean/avg", "completions/mean_length", *(f"time/{phase}_s" for phase in phases)),
        ),
        source="a 7B model on 16 A100-80GB; hours are the paper's GPU-hours by 16 (arXiv 2602.09000)",
    )
