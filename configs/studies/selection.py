"""Is it the best draft that helps, or any draft? (a question that readers of arXiv 2602.09000 asked)

    python launch.py --job compare --config studies/selection.py --mesh 8x1

The paper has the best draft only. A correct draft often makes all refinements correct, which leaves no gradient:
`refine/zero_std_right` and `refine/zero_std_wrong` say how often. Not yet run by us. A twin for two CPU cores:
`selection_cpu.py`.
"""

from configs.studies.igrpo_vs_grpo import GRPO, SOURCE, base
from igrpo_jax.study.config import METRICS, Arm, Study

LABELS = {
    "best": "the best draft",
    "worst": "the worst draft",
    "random": "any draft",
    "wrong_first": "a wrong draft, if any",
    "none": "no draft in the prompt",
}


def get_study() -> Study:
    """Each rule by which a draft gets into the prompt, and GRPO."""
    arms = {name: Arm(label=label, overrides={"algorithm.select": name}) for name, label in LABELS.items()}
    arms["best"] = Arm(label=LABELS["best"], paper={"eval/mean/avg": 0.6987})
    arms["grpo"] = Arm(label="GRPO", overrides=GRPO, paper={"eval/mean/avg": 0.6829})
    return Study(
        title="Which draft is refined",
        config=base(),
        arms=arms,
        baseline="best",
        metrics=(*METRICS, "refine/*"),
        source=SOURCE,
    )
