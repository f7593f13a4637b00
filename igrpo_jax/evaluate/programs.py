"""What one problem goes through when it is evaluated: bare answers, or drafts, a choice, and refinements of it.

The choice knows no gold answer, but for `best`, which is an upper bound: at test time nobody knows the reward.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from igrpo_jax.drive import Ask, Draft, Group, Program
from igrpo_jax.rewards.verdict import filled
from igrpo_jax.types import BARE, DRAFTED, in_round

Goodness = Callable[[Sequence[Group]], np.ndarray]
"""How much each completion of these groups is preferred as the draft, one number a completion, in order."""

GOLD = ("best",)
"""Selections that see the gold answer."""


def bare(count: int, number: int = 0) -> Program:
    """So many answers to the bare question; `number` tells one such portion of a problem's answers from another."""
    yield Ask(in_round(BARE, number), count)


def refined(drafts: int, count: int, rounds: int, goodness: Goodness, noise: np.random.Generator) -> Program:
    """Bare drafts, then `rounds` rounds of `count` refinements; in each but the first a refinement is the draft."""
    groups = [(yield Ask(BARE, drafts))]
    refinements: list[Group] = []
    for number in range(rounds):
        draft = choose(refinements or groups, goodness, noise)
        refinements.append((yield Ask(in_round(DRAFTED, number), count, draft)))


def choose(groups: Sequence[Group], goodness: Goodness, noise: np.random.Generator) -> Draft:
    """The most preferred completion of these groups; one at random among equals."""
    values = np.asarray(goodness(groups), float)
    places = [(group, index) for group in groups for index in range(len(group.samples.lengths))]
    best = np.flatnonzero(values == values.max())
    group, index = places[int(noise.choice(best))]
    return group.completion(index)


def goodness_of(select: str) -> Goodness:
    """The goodness that a selection means.

    `random`: all are equal. `majority`: how many of them have the same parsed answer; one that has none is worth
    nothing. `shortest`: the fewer tokens, the better. `judge`: what the reward of that name gives; one to which it
    gives nothing counts as the others on average. `best`: the reward, which sees the gold answer.
    """
    known = {"random": _equal, "majority": _votes, "shortest": _shortness, "judge": _judged, "best": _reward}
    return known[select]


def _equal(groups: Sequence[Group]) -> np.ndarray:
    return np.zeros(sum(len(group.samples.lengths) for group in groups))


def _votes(groups: Sequence[Group]) -> np.ndarray:
    parsed = [answer for group in groups for answer in group.scores.parsed]
    votes = Counter(answer for answer in parsed if answer is not None)
    return np.array([votes[answer] if answer is not None else 0 for answer in parsed], float)


def _shortness(groups: Sequence[Group]) -> np.ndarray:
    return -np.concatenate([group.samples.lengths for group in groups])


def _judged(groups: Sequence[Group]) -> np.ndarray:
    values = np.concatenate([group.scores.each["judge"] for group in groups]).tolist()
    return np.array(filled(values, [""] * len(values)))


def _reward(groups: Sequence[Group]) -> np.ndarray:
    return np.concatenate([group.scores.total for group in groups])
