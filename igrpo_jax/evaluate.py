"""Evaluation: avg@n with its standard error, unbiased pass@k, majority vote; bare and draft-conditioned."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from igrpo_jax.prompts import Prompter
from igrpo_jax.rollout import Group, Reward, Stage, grade, stage_of, tokens_of
from igrpo_jax.types import Problem, Request, Sample, Samples

BARE, DRAFTED = 3, 4
"""Stage numbers of evaluation; the step is always 0, so that evaluations before and after share their noise."""


def evaluate(
    problems: Sequence[Problem],
    *,
    sample: Sample,
    reward: Reward,
    prompter: Prompter,
    num_samples: int,
    refine: bool,
    refinement_limit: int,
) -> dict[str, float]:
    """Accuracy of the policy on some problems.

    Args:
      problems: the whole set.
      sample: draws completions at the evaluation's settings.
      reward: its first function decides what is right (> 0).
      prompter: renders prompts.
      num_samples: n, samples a problem.
      refine: also answer with the first bare sample as a draft in the prompt.
      refinement_limit: tokens that such a prompt may have.

    Returns:
      `avg@n`, `avg@n_stderr`, `pass@k` for k = 1, 2, 4, ... n, `maj@n`, `mean_length`, `clipped_ratio`; with `refine`
      the same under `drafted/`.
    """
    groups: dict[int, dict[int, Group]] = {BARE: {}, DRAFTED: {}}

    def drafted(p: int) -> Request:
        draft = tokens_of(groups[BARE][p].samples, 0)
        prompt = prompter.refinement(problems[p].question, draft, limit=refinement_limit)
        return Request(p, problems[p].id, DRAFTED, prompt, num_samples)

    def follow(finished: list[tuple[Request, Samples]]) -> list[Request]:
        for (request, _), group in zip(finished, grade(finished, problems, reward, prompter), strict=True):
            groups[request.stage][request.index] = group
        return [drafted(request.index) for request, _ in finished if refine and request.stage == BARE]

    prompts = [prompter.question(problem.question) for problem in problems]
    pairs = enumerate(zip(problems, prompts, strict=True))
    sample([Request(p, problem.id, BARE, prompt, num_samples) for p, (problem, prompt) in pairs], step=0, follow=follow)

    def summary(number: int) -> dict[str, float]:
        return _summary(stage_of(number, [groups[number][p] for p in range(len(problems))], scale=False))

    results = summary(BARE)
    if refine:
        results |= {f"drafted/{name}": value for name, value in summary(DRAFTED).items()}
    return results


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
    first = next(iter(stage.scores.each.values()))
    verdicts = (np.nan_to_num(first) > 0).reshape(count, n)
    parsed = [stage.scores.parsed[p * n : (p + 1) * n] for p in range(count)]
    share = verdicts.mean(axis=1)
    results = {
        f"avg@{n}": share.mean(),
        f"avg@{n}_stderr": share.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan,
    }
    k = 1
    while k <= n:
        results[f"pass@{k}"] = np.mean([pass_at_k(n, int(row.sum()), k) for row in verdicts])
        k *= 2
    results[f"maj@{n}"] = np.mean([majority(p, r) for p, r in zip(parsed, verdicts.tolist(), strict=True)])
    results["mean_length"] = stage.samples.lengths.mean()
    results["clipped_ratio"] = 1 - stage.samples.ended.mean()
    return {name: float(value) for name, value in results.items()}
