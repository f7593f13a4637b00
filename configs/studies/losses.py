"""Does refining help around other losses too? (arXiv 2602.09000, the table of wrapped losses)

    python launch.py --job compare --config studies/losses.py --mesh 8x1

Each method by itself with 8 completions a problem, and with 4 drafts and 4 refinements. The paper has the first three
and does not say what of them it took; here it is what docs/variants.md has, without DAPO's overlong penalty and dynamic
sampling, and at equal sampled completions: GSPO and CISPO, which would be GRPO but for the weights with one update a
rollout, make four and two. Not yet run by us. A twin for two CPU cores: `losses_cpu.py`.
"""

from configs.studies.igrpo_vs_grpo import GRPO, SOURCE, base
from igrpo_jax.study.config import Arm, Study

PAPER = {"grpo": (0.6829, 0.6987), "dapo": (0.6974, 0.7093), "gspo": (0.6920, 0.7031), "dr_grpo": (), "cispo": ()}
LABELS = {"grpo": "GRPO", "dapo": "DAPO", "gspo": "GSPO", "dr_grpo": "Dr. GRPO", "cispo": "CISPO"}
MORE = {
    "dapo": {"epsilon_high": 0.28},
    "gspo": {"epsilon": 3e-4, "epsilon_high": 4e-4, "num_iterations": 4},
    "dr_grpo": {"scale_rewards": "none"},
    "cispo": {"epsilon": 1.0, "epsilon_high": 4.0, "num_iterations": 2},
}


def get_study() -> Study:
    """Five losses, without and with drafts."""
    arms = {}
    for name, label in LABELS.items():
        alone, wrapped = ({"eval/mean/avg": mean} for mean in PAPER[name]) if PAPER[name] else ({}, {})
        loss = {"algorithm.loss_type": name}
        loss |= {f"algorithm.{field}": value for field, value in MORE.get(name, {}).items()}
        arms[name] = Arm(label=label, overrides=GRPO | loss, paper=alone)
        arms[f"i-{name}"] = Arm(label=f"{label} on refinements", overrides=loss, paper=wrapped)
    return Study(
        title="Refinement around other losses",
        config=base(),
        arms=arms,
        baseline="grpo",
        source=SOURCE,
    )
