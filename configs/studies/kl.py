"""How much KL penalty does iGRPO want? (arXiv 2602.09000, the ablation of β)

    python launch.py --job compare --config studies/kl.py --mesh 8x1

The penalty needs the initial policy in memory besides the trained one. Not yet run by us. A twin for two CPU cores:
`kl_cpu.py`.
"""

from configs.studies.igrpo_vs_grpo import SOURCE, base
from igrpo_jax.study.config import METRICS, Arm, Study

PAPER = {"0": 0.6987, "1e-4": 0.7023, "1e-3": 0.6931, "1e-2": 0.6991}


def get_study() -> Study:
    """β of 0, 1e-4, 1e-3 and 1e-2."""
    return Study(
        title="iGRPO with a KL penalty",
        config=base(),
        arms={
            f"beta-{beta}": Arm(
                label=f"β = {beta}", overrides={"algorithm.beta": float(beta)}, paper={"eval/mean/avg": mean}
            )
            for beta, mean in PAPER.items()
        },
        baseline="beta-0",
        budget="problems",
        metrics=(*METRICS, "kl"),
        source=SOURCE,
    )
