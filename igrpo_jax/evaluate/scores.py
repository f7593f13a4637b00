"""Scores of answers that have been graded, in exact arithmetic until the last step: avg@n, pass@k, maj@k.

They are computed from records of what was sampled (`igrpo_jax.records.samples`), so that a second grading of the same
generations goes the same way.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from statistics import variance
from typing import Any

from igrpo_jax.rewards.score import VERIFIERS

Completion = Mapping[str, Any]
"""One completion of a record: `right`, `parsed`, `tokens`, `ended` and `rewards` are read here."""

SMALLEST_VOTE = 4
"""k from which on maj@k is reported: of two answers, and of one, the first always wins."""


def answers_of(record: Mapping[str, Any], mode: str) -> list[Completion]:
    """The completions of a problem's record that are scored: all of them, or the last stage's where `mode` is refined.

    Bare answers are all that was sampled, in one stage or several; refined ones are the last round of refinements.
    """
    stages = record["stages"][-1:] if mode == "refined" else record["stages"]
    return [completion for stage in stages for completion in stage["completions"]]


def scores(answers: Sequence[Sequence[Completion]]) -> dict[str, float]:
    """Scores of P problems, each with n answers or more.

    Args:
      answers: of each problem; n is the smallest number that one has.

    Returns:
      `avg@n`: the mean over problems of the share of their answers that is right; `avg@n_stderr`, its standard error
      over problems, where there are two or more; `pass@k` for k = 1, 2, 4, ... and n, the unbiased estimator;
      `maj@k` for k = 4, 8, ... and n: how often the most frequent answer of k is right, the mean over a problem's
      answers cut into blocks of k in their order (so it is unbiased, and maj@n is the vote of the first n);
      `mean_length` in tokens; `clipped_ratio`, the share that the length limit cut; and `rewards/<name>/mean` of every
      function but accuracy. Where neither accuracy nor gym is rewarded, what is counted is how often the first function
      gives more than 0: `<name>/avg@n` and so on, without a vote, for it reads no answers.
    """
    n = min(map(len, answers))
    right = [[bool(one["right"]) for one in some] for some in answers]
    shares = [Fraction(sum(some), len(some)) for some in right]
    results: dict[str, float | Fraction] = {f"avg@{n}": _mean(shares)}
    if len(shares) > 1:
        results[f"avg@{n}_stderr"] = math.sqrt(variance(shares) / len(shares))
    for k in _sizes(n):
        results[f"pass@{k}"] = _mean(pass_at_k(len(some), sum(some), k) for some in right)
    everything = [one for some in answers for one in some]
    if counted := counted_by(everything[0]["rewards"]):
        results = {f"{counted}/{name}": value for name, value in results.items()}
    else:
        parsed = [[one["parsed"] for one in some] for some in answers]
        for k in sorted({n} | {k for k in _sizes(n) if k >= SMALLEST_VOTE}):
            votes = (majority_at_k(p, r, k) for p, r in zip(parsed, right, strict=True))
            results[f"maj@{k}"] = _mean(votes)
    for name in everything[0]["rewards"]:
        values = [one["rewards"][name] for one in everything if one["rewards"][name] is not None]
        if name != "accuracy" and values:
            results[f"rewards/{name}/mean"] = math.fsum(values) / len(values)
    results["mean_length"] = Fraction(sum(one["tokens"] for one in everything), len(everything))
    results["clipped_ratio"] = Fraction(sum(not one["ended"] for one in everything), len(everything))
    return {name: float(value) for name, value in results.items()}


def pass_at_k(n: int, right: int, k: int) -> Fraction:
    """Probability that at least one of k samples is right, unbiased from n of which `right` are (arXiv 2107.03374).

    >>> pass_at_k(4, 1, 2)
    Fraction(1, 2)
    """
    return 1 - Fraction(math.comb(n - right, k), math.comb(n, k))


def majority_at_k(parsed: Sequence[str | None], right: Sequence[bool], k: int) -> Fraction:
    """How often the vote of k answers is right: the mean over blocks of k answers, what is left over aside.

    >>> majority_at_k(["1", "1", "2", "2", "3"], [True, True, False, False, False], 2)
    Fraction(1, 2)
    """
    starts = range(0, len(parsed) - k + 1, k)
    return _mean(Fraction(majority(parsed[i : i + k], right[i : i + k])) for i in starts)


def majority(parsed: Sequence[str | None], right: Sequence[bool]) -> bool:
    """Whether the most frequent parsed answer is right; among equally frequent ones the first counts."""
    votes = Counter(answer for answer in parsed if answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return bool(next(r for answer, r in zip(parsed, right, strict=True) if answer == winner))


def counted_by(rewards: Iterable[str]) -> str:
    """The reward function that decides which answers are right, of those named; empty where it is accuracy or gym."""
    names = list(rewards)
    return "" if any(name in names for name in VERIFIERS) else names[0]


def _sizes(n: int) -> list[int]:
    """1, 2, 4, ... up to n, and n."""
    return sorted({1 << i for i in range(n.bit_length())} | {n})


def _mean(values: Iterable[Fraction]) -> Fraction:
    """The exact mean."""
    some = list(values)
    return sum(some, Fraction(0)) / len(some)
