"""Bare answers of as many sampled tokens as refined ones took, so that both have cost the same.

The drafts of the refined answers are the first bare answers. Further ones are dealt out to the problems one by one, and
count until the tokens are equal: all problems have equally many, or one more. A few more are drawn than count, for
nobody knows before how long they will be. How many count depends on lengths alone, never on verdicts.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from igrpo_jax.drive import Group, Program
from igrpo_jax.evaluate.programs import bare
from igrpo_jax.types import Problem, Samples

SURPLUS = 1.1
"""Answers that are drawn, as a multiple of those that are expected to count, so that one portion mostly suffices."""

Draw = Callable[[Sequence[Program], Sequence[Problem]], list[list[Group]]]
"""Runs a program for each problem."""


def matched(
    problems: Sequence[Problem], first: Sequence[Sequence[Group]], tokens: int, draw: Draw
) -> list[list[Group]]:
    """Bare answers of P problems that take so many tokens in all, or as near to it as whole answers come.

    Args:
      problems: P.
      first: bare answers of each problem that there are already, equally many of each.
      tokens: to be sampled in all, these included.
      draw: draws further ones.

    Returns:
      For each problem the groups of its answers, in the order in which they were drawn.
    """
    size = len(problems)
    further: list[list[Group]] = [[] for _ in problems]
    dealt, number = 0, 1
    while (rest := tokens - total(first) - total(further)) > 0:
        length = (total(first) + total(further)) / (len(lengths_of(first)) + dealt)
        count = math.ceil(SURPLUS * rest / length)
        counts = deal(count, size, dealt)
        chosen = [p for p in range(size) if counts[p]]
        drawn = draw([bare(counts[p], number) for p in chosen], [problems[p] for p in chosen])
        for p, some in zip(chosen, drawn, strict=True):
            further[p] += some
        dealt, number = dealt + count, number + 1
    lengths = [lengths_of([some]) for some in further]
    ends = np.cumsum([0, *(lengths[k % size][k // size] for k in range(dealt))])
    counts = deal(int(np.abs(total(first) + ends - tokens).argmin()), size, 0)
    return [[*some, *cut(more, count)] for some, more, count in zip(first, further, counts, strict=True)]


def deal(count: int, problems: int, begun: int) -> list[int]:
    """`count` answers dealt out one by one to so many problems, going on where `begun` earlier ones ended.

    >>> deal(4, 3, 1), deal(2, 3, 5)
    ([1, 2, 1], [1, 0, 1])
    """
    return [(count + problems - 1 - (p - begun) % problems) // problems for p in range(problems)]


def cut(groups: Sequence[Group], count: int) -> list[Group]:
    """The first so many completions of these groups."""
    kept: list[Group] = []
    for group in groups:
        some = min(count, len(group.samples.lengths))
        if some:
            samples = Samples(*(values[:some] for values in group.samples))
            kept.append(group._replace(samples=samples, scores=group.scores.part(0, some)))
        count -= some
    return kept


def lengths_of(groups: Sequence[Sequence[Group]]) -> np.ndarray:
    """Tokens of each completion in these groups."""
    found = [group.samples.lengths for some in groups for group in some]
    return np.concatenate(found) if found else np.zeros(0, np.int32)


def total(groups: Sequence[Sequence[Group]]) -> int:
    """Tokens of all completions in these groups."""
    return int(lengths_of(groups).sum())
