"""How sure a mean over few seeds is: 95 % intervals, over seeds and, where it is known, over problems."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and where it lies with 95 % confidence; no bounds where there is one seed only."""

    mean: float
    low: float | None
    high: float | None


def interval(sets: Sequence[Float[np.ndarray, "seeds _"]]) -> Interval:
    """The mean of a score over sets of problems, and its interval over seeds and problems.

    With seeds s and problems p as random effects, x_sp = μ + a_s + b_p + e_sp, the mean varies by
    Var = V_seeds + V_problems - V_noise: what resampling seeds would find, what resampling problems would find, less
    the noise of single cells, which is in both. Each is the bootstrap's variance of a mean, made unbiased, in closed
    form, so that nothing hangs on a random number. The bounds are Student's, with Satterthwaite's degrees of freedom.
    The bootstrap's own percentiles are of no use for so few seeds: with three, they cannot go beyond the least and
    greatest, between which the truth lies in 75 of 100 cases and not in 95.

    Problems that are the same ones in two arms are paired by handing over differences.

    Args:
      sets: one array a set, rows for the same seeds; each set counts the same, whatever its size. A score that is not
        known by problem has one column.

    >>> [round(bound, 3) for bound in interval([np.array([[0.1], [0.2], [0.3]])])]
    [0.2, -0.048, 0.448]
    >>> interval([np.array([[0.1]])])
    Interval(mean=0.1, low=None, high=None)
    """
    means = np.mean([values.mean(axis=1) for values in sets], axis=0)
    seeds, mean = len(means), float(means.mean())
    if seeds < 2:
        return Interval(mean, None, None)
    variance, freedom = _variance(sets, means)
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * variance**0.5
    return Interval(mean, mean - half, mean + half)


def _variance(sets: Sequence[Float[np.ndarray, "seeds _"]], means: Float[np.ndarray, " seeds"]) -> tuple[float, float]:
    """Variance of the mean, and its degrees of freedom."""
    seeds = len(means)
    parts = [(means.var(ddof=1) / seeds, seeds - 1)]
    noise = []
    for values in sets:
        problems = values.shape[1]
        if problems < 2:
            continue
        by_problem = values.mean(axis=0)
        rest = values - values.mean(axis=1, keepdims=True) - by_problem + values.mean()
        cells = (seeds - 1) * (problems - 1)
        parts.append((by_problem.var(ddof=1) / problems / len(sets) ** 2, problems - 1))
        noise.append(((rest**2).sum() / cells / values.size / len(sets) ** 2, cells))
    least = parts[0][0]  # problems as they are, not drawn anew: never surer than that
    variance = max(least, sum(part for part, _ in parts) - sum(part for part, _ in noise))
    weight = sum(part**2 / freedom for part, freedom in (*parts, *noise))
    freedom = variance**2 / weight if weight else seeds - 1
    return float(variance), float(max(freedom, seeds - 1))


LOWER_IS_BETTER = ("cost/step_s", "cost/seconds", "cost/hours", "cost/peak_gb", "time/", "step_time", "memory/")
HIGHER_IS_BETTER = ("avg", "maj", "pass@", "completions_per_s", "tokens_per_s")
"""What metrics, or their last parts, begin with. Rewards of training are neither: arms have different prompts there."""


def verdict(metric: str, difference: Interval) -> str | None:
    """What a difference to the baseline says: better, worse, or not distinguishable; None where there is no interval.

    Where more is neither better nor worse, as with entropy, it is higher or lower. Seeds that agree to the last digit
    say nothing of a score, for few problems have few scores; what a run costs may well be the same each time.

    >>> verdict("eval/mean/avg", Interval(0.2, 0.1, 0.3)), verdict("cost/step_s", Interval(0.2, 0.1, 0.3))
    ('better', 'worse')
    """
    if difference.low is None or difference.high is None:
        return None
    by_chance = difference.low == difference.high and not metric.startswith("cost/")
    if difference.low <= 0 <= difference.high or by_chance:
        return "not distinguishable"
    higher, name = difference.low > 0, metric.partition("@0%")[0].rpartition("/")[2]
    if name.startswith(HIGHER_IS_BETTER):
        return "better" if higher else "worse"
    if metric.startswith(LOWER_IS_BETTER):
        return "worse" if higher else "better"
    return "higher" if higher else "lower"
