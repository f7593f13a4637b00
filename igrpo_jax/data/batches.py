"""Which problems a step gets: a function of the seed and the step, without state."""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from igrpo_jax.data.source import Source
from igrpo_jax.types import Problem

ID_STRIDE = 2**26
"""Problem i of the s-th source has the id s * 2**26 + i, which fits uint32 for 64 sources of 2**26 rows."""

MAX_SOURCES = 64

_ONE = 2**32

_EXTRA = 1
"""What tells the permutations of extra problems from those of a step's own."""


def make_batches(
    sources: Sequence[Source], *, mixture: Sequence[float | int], problems_per_step: int, seed: int, extra: int = 0
) -> Callable[[int], list[Problem]]:
    """Makes the function from a step to its problems.

    Slot n of the run (slot j of step t is n = t * problems_per_step + j) belongs to a source by a quota: after any n
    slots each source has had its share of them, give or take as many as there are sources. The k-th slot of a source of
    m problems gets item k mod m of a permutation keyed by seed, source and epoch k // m. So every problem comes once an
    epoch, an epoch may begin in the middle of a step, and in such a step a problem may come twice.

    Extra problems, which take the place of others, are the same with `extra` problems a step and other permutations, so
    they disturb no epoch. Those that the step has already are left out, so that there may be fewer.

    Args:
      sources: where problems come from; their ids are made unique by adding `ID_STRIDE` for each earlier source.
      mixture: weight of each source; empty means in proportion to size, or equal if one of them is endless.
      problems_per_step: problems a step.
      seed: other seeds, other batches; at least 0.
      extra: how many problems may follow on a step's own.

    Returns:
      A pure function of the step, counted from 0: its problems, and behind them the extra ones.

    Raises:
      ValueError: if the weights do not fit the sources, or a step needs more problems of a source than it has.
    """
    if not 0 < len(sources) <= MAX_SOURCES:
        raise ValueError(f"data.train names {len(sources)} sources; name 1 to {MAX_SOURCES}")
    if problems_per_step < 1 or seed < 0:
        raise ValueError(f"train.problems_per_step ({problems_per_step}) must be at least 1, seed ({seed}) at least 0")
    shares = _shares(sources, mixture)
    for source, share in zip(sources, shares, strict=True):
        if problems_per_step * share > len(source):
            raise ValueError(
                f"a step needs {math.ceil(problems_per_step * share)} problems of {source.name}, which has "
                f"{len(source)}; lower train.problems_per_step or its weight in data.mixture"
            )
    quotas = _quotas(shares, seed)

    @functools.lru_cache(maxsize=4 * len(sources))
    def permutation(source: int, epoch: int, *stream: int) -> np.ndarray:
        generator = np.random.default_rng(np.random.SeedSequence([seed, source, epoch, *stream]))
        return generator.permutation(len(sources[source]))

    def problem(source: int, draw: int, *stream: int) -> Problem:
        epoch, position = divmod(draw, len(sources[source]))
        item = sources[source][int(permutation(source, epoch, *stream)[position])]
        if not 0 <= item.id < ID_STRIDE:
            raise ValueError(f"{sources[source].name} has the problem id {item.id}; ids must be 0 to {ID_STRIDE - 1}")
        return item._replace(id=source * ID_STRIDE + item.id)

    def batch(step: int) -> list[Problem]:
        own = [problem(*_slot(slot, quotas)) for slot in _slots(step, problems_per_step)]
        taken = {one.id for one in own}
        further = (problem(*_slot(slot, quotas), _EXTRA) for slot in _slots(step, extra))
        return own + list({one.id: one for one in further if one.id not in taken}.values())

    return batch


def _slots(step: int, number: int) -> range:
    """The slots of a step, of `number` a step."""
    return range(step * number, (step + 1) * number)


def _shares(sources: Sequence[Source], mixture: Sequence[float | int]) -> list[Fraction]:
    """The part of all slots that each source gets, exactly."""
    if not mixture:
        endless = any(getattr(source, "endless", False) for source in sources)
        mixture = [1 if endless else len(source) for source in sources]
    if len(mixture) != len(sources):
        raise ValueError(
            f"data.mixture has {len(mixture)} weights for {len(sources)} sources; give one a source, or none at all"
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in mixture) or not any(mixture):
        raise ValueError(f"data.mixture {tuple(mixture)} must be finite, not negative, and not all zero")
    weights = [Fraction(weight) for weight in mixture]
    return [weight / sum(weights) for weight in weights]


def _quotas(shares: Sequence[Fraction], seed: int) -> list[tuple[int, int]]:
    """Rate and phase of each source among the slots that the sources before it leave, in units of 2**-32."""
    phases = np.random.default_rng(np.random.SeedSequence(seed)).integers(_ONE, size=len(shares))
    rest = [sum(shares[source:]) for source in range(len(shares))]
    rates = [round(share / left * _ONE) if share else 0 for share, left in zip(shares, rest, strict=True)]
    return list(zip(rates, map(int, phases), strict=True))


def _slot(slot: int, quotas: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The source that a slot belongs to, and how many earlier slots were that source's.

    Each source takes floor(rate * n + phase) of the first n slots that reach it and passes the others on, so no count
    needs the slots before. Integers, because the counts must be exact for ever.
    """
    for source, (rate, phase) in enumerate(quotas):
        taken = (slot * rate + phase) // _ONE
        if ((slot + 1) * rate + phase) // _ONE > taken:
            return source, taken
        slot -= taken
    raise AssertionError("the last source with a weight takes every slot that reaches it")
