"""What do more completions a problem bring? (arXiv 2602.09000, the ablation of the number of completions)

    python launch.py --job compare --config studies/completions.py --mesh 8x1

Half of them are drafts. Equal in all arms are the problems, so arms with more completions cost more. Not yet run by us.
A twin for two CPU cores: `completions_cpu.py`.
"""

from configs.studies.igrpo_vs_grpo import SOURCE, base
from igrpo_jax.study.config import Arm, Study

PAPER = {4: 0.6779, 8: 0.6987, 16: 0.7017, 32: 0.7033}


def get_study() -> Study:
    """4, 8, 16 and 32 completions a problem, half of them drafts."""
    return Study(
        title="iGRPO with more completions a problem",
        config=base(),
        arms={
            f"total-{total}": Arm(
                label=f"{total // 2} + {total // 2}",
                overrides={"algorithm.num_drafts": total // 2, "algorithm.num_generations": total // 2},
                paper={"eval/mean/avg": mean},
            )
            for total, mean in PAPER.items()
        },
        baseline="total-8",
        budget="problems",
        source=SOURCE,
    )
