"""Does refining help around other losses too? (arXiv 2602.09000, the table of wrapped losses)

    python launch.py --job compare --config studies/losses.py --mesh 8x1

Each loss by itself with 8 completions a problem, and with 4 drafts and 4 refinements. The paper has the first three.
Only the loss differs: DAPO's clip-higher and dynamic sampling are fields of their own, see docs/variants.md. Not yet
run by us. A twin for two CPU cores: `losses_cpu.py`.
"""

from configs.studies.igrpo_vs_grpo import GRPO, SOURCE, base
from igrpo_jax.study.config import Arm, Study

PAPER = {"grpo": (0.6829, 0.6987), "dapo": (0.6974, 0.7093), "gspo": (0.6920, 0.7031), "dr_grpo": (), "cispo": ()}
LABELS = {"grpo": "GRPO", "dapo": "DAPO", "gspo": "GSPO", "dr_grpo": "Dr. GRPO", "cispo": "CISPO"}


def get_study() -> Study:
    """Five losses, without and with drafts."""
    arms = {}
    for name, label in LABELS.items():
        alone, wrapped = ({"eval/mean/avg": mean} for mean in PAPER[name]) if PAPER[name] else ({}, {})
        loss = {"algorithm.loss_type": name}
        arms[name] = Arm(label=label, overrides=GRPO | loss, paper=alone)
        arms[f"i-{name}"] = Arm(label=f"{label} on refinements", overrides=loss, paper=wrapped)
    return Study(
        title="Refinement around other losses",
        config=base(),
        arms=arms,
        baseline="grpo",
        source=SOURCE,
    )
