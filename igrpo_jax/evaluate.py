"""Evaluation: avg@n with its standard error, unbiased pass@k, majority vote; bare and draft-conditioned."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from igrpo_jax.prompts import Prompter
from igrpo_jax.rollout import Reward, Stage, score, tokens_of
from igrpo_jax.types import Problem, Sample

BARE, DRAFTED = 3, 4
"""Stage numbers of evaluation; the step is always 0, so that evaluations before and after share their noise."""


def evaluate(
    problems: Sequence[Problem],
    *,
    sample: Sample,
    reward: Reward,
    prompter: Prompter,
    num_samples: int,
    batch: int,
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
      batch: problems sampled at once; the last batch is filled up, so that one shape is compiled.
      refine: also answer with the first bare sample as a draft in the prompt.
      refinement_limit: tokens that such a prompt may have.

    Returns:
      `avg@n`, `avg@n_stderr`, `pass@k` for k = 1, 2, 4, ... n, `maj@n`, `mean_length`, `clipped_ratio`; with `refine`
      the same under `drafted/`.
    """
    bare, drafted = [], []
    for start in range(0, len(problems), batch):
        part = list(problems[start : start + batch])
        full = part + [problems[0]] * (batch - len(part))
        prompts = [prompter.question(p.question) for p in full]

        def run(prompts: list[list[int]], stage: int, full=full) -> Stage:
            ids = [p.id for p in full]
            samples = sample(prompts, ids=ids, step=0, stage=stage, num_samples=num_samples, logprobs=False)
            return score(stage, full, prompts, samples, reward=reward, prompter=prompter, scale=False)

        stage = run(prompts, BARE)
        bare.append((stage, len(part)))
        if refine:
            drafts = [tokens_of(stage.samples, i, 0) for i in range(len(full))]
            pairs = zip(full, drafts, strict=True)
            prompts = [prompter.refinement(p.question, d, limit=refinement_limit) for p, d in pairs]
            drafted.append((run(prompts, DRAFTED), len(part)))
    results = _summary(bare)
    if refine:
        results |= {f"drafted/{name}": value for name, value in _summary(drafted).items()}
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


def _summary(parts: Sequence[tuple[Stage, int]]) -> dict[str, float]:
    right, parsed, lengths, ended = [], [], [], []
    for stage, count in parts:
        shape = stage.rewards.shape
        first = next(iter(stage.scores.each.values()))
        right.append((np.nan_to_num(first) > 0).reshape(shape)[:count])
        answers = stage.scores.parsed
        parsed += [answers[p * shape[1] : (p + 1) * shape[1]] for p in range(count)]
        lengths.append(stage.samples.lengths[:count])
        ended.append(stage.samples.ended[:count])
    verdicts = np.concatenate(right)
    count, n = verdicts.shape
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
    results["mean_length"] = np.concatenate(lengths).mean()
    results["clipped_ratio"] = 1 - np.concatenate(ended).mean()
    return {name: float(value) for name, value in results.items()}
