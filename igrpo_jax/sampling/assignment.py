"""Which slot draws which samples: the scheduling decisions of sampling, as functions of plain data without a device.

A slot holds one prompt and draws samples of it. The slots lie on several shards, on each the same number, one shard's
after the other's. A prompt can be copied from slot to slot inside a shard, and not between shards.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Task(NamedTuple):
    """Consecutive samples of one request: those that a slot draws, or those that still wait for slots.

    Attributes:
      request: number of the request.
      first: number of the first of these samples in the request.
      count: how many samples these are.
    """

    request: int
    first: int
    count: int


class Slot(NamedTuple):
    """What the host knows of one slot.

    Attributes:
      task: the samples that the slot draws; None if it is idle.
      held: the request whose prompt is in the slot; it stays there when the slot becomes idle. None if there is none.
    """

    task: Task | None = None
    held: int | None = None


class Placement(NamedTuple):
    """A task for an idle slot, and how the prompt gets there; it is in the slot already if nothing is said of that.

    Attributes:
      slot: the slot.
      task: the samples that it shall draw.
      source: the slot whose prompt is copied, on the same shard.
      row: the prompt's place in the shard's list of prompts to prefill.
    """

    slot: int
    task: Task
    source: int | None = None
    row: int | None = None


class Assignment(NamedTuple):
    """What is to be done to fill idle slots.

    The prompts are to be copied first and the prefilled ones to be put into their slots then, for these may overwrite
    what is copied.

    Attributes:
      placements: the slots that are filled, in the order in which they were chosen.
      prefill: for each shard, the requests whose prompts are to be prefilled.
      waiting: the samples that did not get a slot, in the order in which they waited.
    """

    placements: list[Placement]
    prefill: list[list[int]]
    waiting: list[Task]


def assign(waiting: Sequence[Task], slots: Sequence[Slot], *, shards: int, lanes: int, room: int) -> Assignment:
    """Gives waiting samples to idle slots, until one or the other runs out, or the room for prompts to prefill.

    Of the shards that can get work, the one with the most idle slots is always served next, in its first idle slot. It
    goes on with the request whose prompt it holds. When no more of that waits, it begins another, whose prompt must be
    prefilled: the first that no shard holds, or if there is none the first of all, whose work it shares from then on.

    Args:
      waiting: a task for each request that has samples without a slot; who stands first is served first.
      slots: all slots, shard after shard.
      shards: number of shards.
      lanes: samples that a slot draws at once.
      room: prompts that a shard can prefill at once.
    """
    queue = {task.request: task for task in waiting}
    size = len(slots) // shards
    idle = [deque(s for s in range(n * size, (n + 1) * size) if slots[s].task is None) for n in range(shards)]
    # The request that each shard is at, and the slot with its prompt. A shard holds the prompt of one waiting request
    # at most, because it begins another only when no more of the first waits.
    current, source = [-1] * shards, [-1] * shards
    for s, slot in enumerate(slots):
        if slot.held in queue:
            current[s // size], source[s // size] = slot.held, s
    held = {slot.held for slot in slots}
    new = deque(request for request in queue if request not in held)
    placements: list[Placement] = []
    prefill: list[list[int]] = [[] for _ in range(shards)]
    while queue:
        able = [n for n in range(shards) if idle[n] and (current[n] in queue or len(prefill[n]) < room)]
        if not able:
            break
        shard = max(able, key=lambda n: len(idle[n]))
        if current[shard] not in queue:
            current[shard] = new.popleft() if new else next(iter(queue))
            prefill[shard].append(current[shard])
        slot, begun = idle[shard].popleft(), len(prefill[shard])
        task = _take(queue, current[shard], lanes)
        if begun:
            placements.append(Placement(slot, task, row=begun - 1))
        else:
            placements.append(Placement(slot, task, source=None if slot == source[shard] else source[shard]))
    return Assignment(placements, prefill, list(queue.values()))


def _take(queue: dict[int, Task], request: int, count: int) -> Task:
    """Takes the first `count` samples of a request from those that wait, or all if fewer do."""
    _, first, left = queue[request]
    if left <= count:
        return queue.pop(request)
    queue[request] = Task(request, first + count, left - count)
    return Task(request, first, count)


def fewest(slots: Sequence[Slot], sizes: Sequence[int], *, shards: int) -> int:
    """The smallest number of slots that has room for the work of every shard: one of `sizes`, or as many as now.

    Args:
      slots: all slots, shard after shard.
      sizes: numbers of slots to choose from, multiples of the shards.
      shards: number of shards.
    """
    busy = np.array([slot.task is not None for slot in slots]).reshape(shards, -1)
    needed = shards * int(busy.sum(axis=1).max())
    return min((size for size in sizes if size >= needed), default=len(slots))


def moved(slots: Sequence[Slot], number: int, *, shards: int) -> Int[np.ndarray, " number"]:
    """Where the work of each slot comes from, when all work moves to the first of `number` slots, shard by shard.

    Args:
      slots: all slots as they are, shard after shard.
      number: slots afterwards, a multiple of the shards, with room for the work of every shard.
      shards: number of shards.

    Returns:
      int32: for every slot afterwards the slot whose work it takes over; -1 if it is idle.
    """
    now, then = len(slots) // shards, number // shards
    origins = np.full((shards, then), -1, np.int32)
    for shard, row in enumerate(origins):
        busy = [s for s in range(shard * now, (shard + 1) * now) if slots[s].task is not None]
        row[: len(busy)] = busy
    return origins.reshape(-1)
