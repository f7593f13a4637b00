"""Evaluation: avg@n with its standard error, unbiased pass@k, majority vote; bare and draft-conditioned."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from igrpo_jax.drive import Ask, Program, Reward, drive
from igrpo_jax.prompts import Prompter
from igrpo_jax.protocols import Sample
from igrpo_jax.rollout import Stage, stage_of
from igrpo_jax.types import BARE, DRAFTED, Divide, Problem, alone


def evaluate(
    problems: Sequence[Problem],
    *,
    sample: Sample,
    reward: Reward,
    prompter: Prompter,
    num_samples: int,
    refine: bool,
    refinement_limit: int,
    divide: Divide = alone,
) -> dict[str, float]:
    """Accuracy of the policy on some problems.

    Args:
      problems: the whole set.
      sample: draws completions at the evaluation's settings.
      reward: `Scores.right` decides what is right.
      prompter: renders prompts.
      num_samples: n, samples a problem.
      refine: also answer with the first bare sample as a draft in the prompt.
      refinement_limit: tokens that such a prompt may have.
      divide: as for `rollout`.

    Returns:
      `avg@n`, `avg@n_stderr` (of two problems or more), `pass@k` for k = 1, 2, 4, ... n, `maj@n`, `mean_length`,
      `clipped_ratio`, and `rewards/<name>/mean` of every function but accuracy; with `refine` the same under
      `drafted/`. If neither accuracy nor gym is rewarded, what is counted is how often the first function gives more
      than 0: `<name>/avg@n` and so on, without a vote, for it reads no answers.
    """
    groups, _ = drive(
        [answers(num_samples, refine) for _ in problems], problems, sample=sample, reward=reward, prompter=prompter,
        refinement_limit=refinement_limit, step=0, divide=divide,
    )  # fmt: skip
    bare, *drafted = (stage_of(some, baseline="group", scale="none") for some in zip(*groups, strict=True))
    results = _summary(bare)
    for stage in drafted:
        results |= {f"drafted/{name}": value for name, value in _summary(stage).items()}
    return results


def answers(num_samples: int, refine: bool) -> Program:
    """Bare answers of one problem and, with `refine`, answers with the first of them as a draft in the prompt."""
    bare = yield Ask(BARE, num_samples)
    if refine:
        yield Ask(DRAFTED, num_samples, bare.completion(0))


def pass_at_k(n: int, right: int, k: int) -> float:
    """Probability that at least one of k samples is right, unbiased from n of which `right` are (arXiv 2107.03374).

    >>> round(pass_at_k(4, 1, 2), 6)
    0.5
    """
    if n - right < k:
        return 1.0
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def majority(parsed: Sequence[str | None], right: Sequence[bool]) -> bool:
    """Whether the most frequent parsed answer is right; among equally frequent ones the first counts."""
    votes = Counter(answer for answer in parsed if answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return bool(next(r for answer, r in zip(parsed, right, strict=True) if answer == winner))


def _summary(stage: Stage) -> dict[str, float]:
    count, n = stage.rewards.shape
    counted, right = stage.scores.right()
    verdicts = right.reshape(count, n)
    share = verdicts.mean(axis=1)
    results = {f"avg@{n}": share.mean()}
    if count > 1:
        results[f"avg@{n}_stderr"] = share.std(ddof=1) / math.sqrt(count)
    k = 1
    while k <= n:
        results[f"pass@{k}"] = np.mean([pass_at_k(n, int(row.sum()), k) for row in verdicts])
        k *= 2
    if counted:
        results = {f"{counted}/{name}": value for name, value in results.items()}
    else:
        parsed = [stage.scores.parsed[p * n : (p + 1) * n] for p in range(count)]
        results[f"maj@{n}"] = np.mean([majority(p, r) for p, r in zip(parsed, verdicts.tolist(), strict=True)])
    for name, values in stage.scores.each.items():
        if name != "accuracy" and not np.isnan(values).all():
            results[f"rewards/{name}/mean"] = np.nanmean(values)
    results["mean_length"] = stage.samples.lengths.mean()
    results["clipped_ratio"] = 1 - stage.samples.ended.mean()
    return {name: float(value) for name, value in results.items()}
