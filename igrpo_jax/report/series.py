"""Metrics of runs as points of curves: plain data, thinned to what a figure can show."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from igrpo_jax.report.runs import Recorded

Point = tuple[float | int, float | int]

MOST = 400
"""Points of a curve; of a longer one the means of equally long stretches are shown."""

TRAINED = "trained completions"
"""What stands for the unprefixed metrics: refinements, or GRPO's completions."""


class Curves(NamedTuple):
    """One figure of curves over training steps.

    Attributes:
      name: of its files.
      title, caption: what is seen, and how to read it.
      axis: what is measured, in which unit.
      metrics: metric -> what its curve is called.
    """

    name: str
    title: str
    caption: str
    axis: str
    metrics: Mapping[str, str]


LEARNING = (
    Curves(
        "reward", "Reward",
        "Mean reward of a step. Refinements see a draft, so theirs is no measure of the bare policy; the drafts' is.",
        "mean reward",
        {"reward": TRAINED, "draft/reward": "drafts", "draft/reward_best": "best draft"},
    ),
    Curves(
        "length", "Response length", "Mean tokens of a completion.", "tokens",
        {"completions/mean_length": TRAINED, "draft/completions/mean_length": "drafts"},
    ),
    Curves(
        "clipped", "Cut off", "Share of completions that reached the limit of tokens before they ended.", "share",
        {"completions/clipped_ratio": TRAINED, "draft/completions/clipped_ratio": "drafts"},
    ),
    Curves(
        "entropy", "Entropy", "Mean entropy of the policy in the tokens trained on.", "nats a token",
        {"entropy": "entropy"},
    ),
    Curves(
        "gradient", "Gradient norm", "Before clipping. Steps in which no group had spread have none.", "norm",
        {"grad_norm": "gradient norm"},
    ),
    Curves("kl", "KL", "Divergence from the initial policy.", "nats a token", {"kl": "KL"}),
    Curves(
        "difference", "Sampler and trainer",
        "Mean distance of their log-probabilities of the same tokens; rounding, as long as it stays flat.",
        "nats a token", {"sampling/logp_difference/mean": "distance"},
    ),
)  # fmt: skip
"""Figures of what is learned."""

REFINING = (
    Curves(
        "refining", "Fixed, broken, copied", "Fixed: right refinements of wrong drafts. Broken: wrong ones of right "
        "drafts. Copied: refinements that repeat the draft's text.", "share",
        {"refine/fixed": "fixed", "refine/broken": "broken", "refine/copied": "copied"},
    ),
    Curves(
        "zero_spread", "Groups without spread", "Groups whose refinements are all worth the same teach nothing; by "
        "whether the draft in the prompt was right.", "share of groups",
        {
            "refine/zero_std_right": "draft right", "refine/zero_std_wrong": "draft wrong",
            "draft/frac_reward_zero_std": "groups of drafts",
        },
    ),
    Curves(
        "gain", "Gain", "Mean reward of the refinements less that of the draft they saw.", "reward",
        {"refine/gain": "gain"},
    ),
)  # fmt: skip
"""Figures of what the second stage does."""

COST = (
    Curves(
        "tokens", "Tokens a second", "Sampled: of all stages. Trained: completion tokens.", "tokens a second",
        {"tokens_per_s/sample": "sampled", "tokens_per_s/train": "trained"},
    ),
    Curves(
        "step_time", "Seconds a step", "Wall time; evaluations and checkpoints are between steps.", "seconds",
        {"step_time": "step"},
    ),
    Curves("memory", "Peak memory", "Of the first process so far.", "GB", {"memory/peak_gb": "peak"}),
)  # fmt: skip
"""Figures of what it costs."""

WITHOUT_DRAFTS = {"frac_reward_zero_std": "all groups"}
"""What stands in the figure of spread for a run that has no drafts."""


def points(runs: Sequence[Recorded], curves: Curves) -> list[dict[str, Any]]:
    """`run`, `arm`, `series`, `step` and `value` of every point of a figure."""
    found = []
    for run in runs:
        drafts = any("draft/reward" in record for record in run.steps)
        metrics = dict(curves.metrics)
        if "refine/zero_std_right" in metrics and not drafts:
            metrics = WITHOUT_DRAFTS
        for metric, series in metrics.items():
            name = series if series != TRAINED else "refinements" if drafts else "completions"
            pairs = [(r["step"], r[metric]) for r in run.steps if is_number(r.get(metric))]
            found += [
                {"run": run.name, "arm": run.arm, "series": name, "step": step, "value": value}
                for step, value in thinned(pairs)
            ]
    return found


def thinned(pairs: Sequence[Point], most: int = MOST) -> list[Point]:
    """At most so many points: the means of stretches of equal length.

    >>> thinned([(1, 0.0), (2, 1.0), (3, 5.0)], most=2)
    [(1.5, 0.5), (3.0, 5.0)]
    """
    if len(pairs) <= most:
        return list(pairs)
    size = math.ceil(len(pairs) / most)
    parts = [pairs[k : k + size] for k in range(0, len(pairs), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a metric is there: neither missing nor what is not finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def mean(values: Iterable[Any]) -> float | None:
    """The mean of what is there; None of nothing."""
    there = [value for value in values if is_number(value)]
    return sum(there) / len(there) if there else None
