"""From the results of runs to a comparison: a row an arm and metric, and the differences to the baseline."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from igrpo_jax.study.config import Study
from igrpo_jax.study.intervals import CONFIDENCE, interval, verdict
from igrpo_jax.study.results import Cells, Results, Score

Found = Mapping[str, Mapping[int, Results]]
"""Results by arm and seed."""


def comparison(study: Study, found: Found) -> dict[str, Any]:
    """What comparison.json says.

    Args:
      study: what is compared.
      found: of the runs that have ended; arms and seeds may be missing.

    Returns:
      `rows`: mean and bounds of each arm's metrics, the values of its `seeds`, in the order of `of`, and the paper's.
      `differences`: the same of what each arm has more than the baseline, over the seeds that both have, paired by seed
      and, where a score is known by problem, by problem; with a `verdict`. `budget`: what was `matched`, and the mean
      over seeds of all that was spent, `by_arm`.
    """
    metrics = dict.fromkeys(name for runs in found.values() for run in runs.values() for name in run.scores)
    rows, differences = [], []
    for metric in sorted(metrics, key=lambda name: (not name.startswith("eval/mean/"), not name.startswith("eval/"))):
        for arm, its in study.arms.items():
            scores = _scores(found, arm, metric)
            if scores:
                rows.append(_row(arm, metric, scores, its.paper.get(metric)))
            others = _scores(found, study.baseline, metric)
            if arm != study.baseline and scores.keys() & others.keys():
                differences.append(_difference(arm, study.baseline, metric, scores, others))
    spent = {
        arm: {name: statistics.fmean(run.spent[name] for run in runs.values()) for name in _any(runs).spent}
        for arm, runs in found.items()
        if runs
    }
    return {
        "rows": rows,
        "differences": differences,
        "budget": {"matched": study.budget, "by_arm": spent},
        "confidence": CONFIDENCE,
    }


def _any(runs: Mapping[int, Results]) -> Results:
    return next(iter(runs.values()))


def _scores(found: Found, arm: str, metric: str) -> dict[int, Score]:
    return {seed: run.scores[metric] for seed, run in found.get(arm, {}).items() if metric in run.scores}


def _row(arm: str, metric: str, scores: Mapping[int, Score], paper: float | int | None) -> dict[str, Any]:
    its = interval(_arrays([*scores.values()]))
    values = {"seeds": [score.value for score in scores.values()], "of": [*scores]}
    return {"arm": arm, "metric": metric, **its._asdict(), **values, "paper": paper}


def _difference(
    arm: str, baseline: str, metric: str, scores: Mapping[int, Score], others: Mapping[int, Score]
) -> dict[str, Any]:
    common = [seed for seed in scores if seed in others]
    both = _arrays([*(scores[seed] for seed in common), *(others[seed] for seed in common)])
    found = interval([values[: len(common)] - values[len(common) :] for values in both])
    said = {"arm": arm, "against": baseline, "metric": metric, **found._asdict(), "of": common}
    return said | {"verdict": verdict(metric, found)}


def _arrays(scores: Sequence[Score]) -> list[Float[np.ndarray, "runs _"]]:
    """One array a set, a row for each run, a column for each problem; one column where not all know the same ones."""
    cells = [score.cells for score in scores]
    first = cells[0]
    if first is None or any(its is None or _names(its) != _names(first) for its in cells):
        return [np.array([[score.value] for score in scores])]
    return [np.array([[its[i][problem] for problem in part] for its in cells if its]) for i, part in enumerate(first)]


def _names(cells: Cells) -> list[set[Any]]:
    return [set(part) for part in cells]
