"""Placements of samples in slots, written as the arrays that the device gets."""

from collections.abc import Sequence

import numpy as np

from igrpo_jax.sampling.assignment import Placement
from igrpo_jax.sampling.decoding import Admission
from igrpo_jax.types import Request


def admission(placements: Sequence[Placement], requests: Sequence[Request], *, slots: int, shards: int) -> Admission:
    """Arrays of one size for any number of placements, which may be none.

    Args:
      placements: which idle slots draw which samples, and where their prompts come from.
      requests: for each placement, the request of these samples.
      slots: S, the number of all slots.
      shards: number of shards, on each of which the same number of slots lie.
    """
    size = slots // shards
    zeros, nowhere = lambda kind: np.zeros(slots, kind), lambda: np.full(slots, size, np.int32)
    new = Admission(
        fresh=zeros(bool), source=zeros(np.int32), target=nowhere(), prompt=zeros(np.int32), place=nowhere(),
        wanted=zeros(np.int32), offset=zeros(np.int32), ids=zeros(np.uint32), stages=zeros(np.int32),
    )  # fmt: skip
    copies, fills = np.arange(shards) * size, np.arange(shards) * size  # where each shard's next one is written
    for (slot, task, source, row), request in zip(placements, requests, strict=True):
        shard, place = divmod(slot, size)
        if source is not None:
            new.source[copies[shard]], new.target[copies[shard]] = source - shard * size, place
            copies[shard] += 1
        if row is not None:
            new.prompt[fills[shard]], new.place[fills[shard]] = row, place
            fills[shard] += 1
        new.fresh[slot], new.wanted[slot], new.offset[slot] = True, task.count, task.first
        new.ids[slot], new.stages[slot] = request.id, request.stage
    return new
