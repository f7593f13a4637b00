"""Which slot draws which samples, and how prompts get there: on examples, and on random lives of a pool."""

import random
from collections import defaultdict

import numpy as np
import pytest

from igrpo_jax.sampling.admission import admission
from igrpo_jax.sampling.assignment import Assignment, Placement, Slot, Task, assign, fewest, moved
from igrpo_jax.types import Request


def busy(request, first=0, count=1):
    return Slot(Task(request, first, count), held=request)


def test_a_group_is_divided_over_lanes_and_its_rest_leaves_some_idle():
    found = assign([Task(0, 0, 5), Task(1, 2, 4)], [Slot()] * 6, shards=1, lanes=2, room=2)
    assert found == Assignment(
        placements=[
            Placement(0, Task(0, 0, 2), row=0),
            Placement(1, Task(0, 2, 2), row=0),
            Placement(2, Task(0, 4, 1), row=0),
            Placement(3, Task(1, 2, 2), row=1),
            Placement(4, Task(1, 4, 2), row=1),
        ],
        prefill=[[0, 1]],
        waiting=[],
    )


def test_idle_slots_run_out():
    found = assign([Task(3, 1, 4), Task(4, 0, 9)], [busy(3), Slot(), busy(3)], shards=1, lanes=1, room=1)
    assert found == Assignment([Placement(1, Task(3, 1, 1), source=2)], [[]], [Task(3, 2, 3), Task(4, 0, 9)])


def test_the_room_for_prompts_runs_out():
    waiting = [Task(r, 0, 1) for r in range(5)]
    found = assign(waiting, [Slot()] * 8, shards=2, lanes=1, room=2)
    assert [(slot, task.request, row) for slot, task, _, row in found.placements] == [
        (0, 0, 0), (4, 1, 0), (1, 2, 1), (5, 3, 1),
    ]  # fmt: skip
    assert (found.prefill, found.waiting) == ([[0, 2], [1, 3]], [Task(4, 0, 1)])


def test_a_shard_goes_on_with_the_prompt_that_it_holds():
    """Request 7 is first in the queue, but shard 1 holds 8 and copies that, except into a slot that has it already."""
    slots = [busy(7), busy(7), Slot(), Slot(held=8), busy(5), Slot(held=5)]
    found = assign([Task(7, 2, 3), Task(8, 0, 2)], slots, shards=2, lanes=1, room=1)
    assert found == Assignment(
        placements=[
            Placement(3, Task(8, 0, 1)),
            Placement(2, Task(7, 2, 1), source=1),
            Placement(5, Task(8, 1, 1), source=3),
        ],
        prefill=[[], []],
        waiting=[Task(7, 3, 2)],
    )


def test_a_shard_begins_what_no_other_holds_and_shares_another_s_work_only_then():
    slots = [busy(0), busy(0), Slot(), Slot()]
    alone = assign([Task(0, 2, 3), Task(1, 0, 1)], slots, shards=2, lanes=1, room=2)
    assert alone.placements == [Placement(2, Task(1, 0, 1), row=0), Placement(3, Task(0, 2, 1), row=1)]
    assert (alone.prefill, alone.waiting) == ([[], [1, 0]], [Task(0, 3, 2)])


def test_nothing_waits_or_nothing_is_idle():
    assert assign([], [Slot(), busy(0)], shards=1, lanes=1, room=1) == Assignment([], [[]], [])
    assert assign([Task(1, 0, 1)], [busy(0)], shards=1, lanes=1, room=1) == Assignment([], [[]], [Task(1, 0, 1)])


def test_placements_as_arrays():
    placements = [
        Placement(3, Task(8, 0, 2)),
        Placement(5, Task(8, 2, 2), source=3),
        Placement(2, Task(7, 4, 2), source=1),
        Placement(4, Task(9, 0, 1), row=0),
        Placement(0, Task(6, 0, 2), row=1),
    ]
    requests = [Request(0, id, stage, [1], 9) for id, stage in ((80, 2), (80, 2), (70, 1), (90, 1), (60, 1))]
    new = admission(placements, requests, slots=6, shards=2)
    assert {name: array.tolist() for name, array in new._asdict().items()} == {
        "fresh": [True, False, True, True, True, True],
        "source": [1, 0, 0, 0, 0, 0],
        "target": [2, 3, 3, 2, 3, 3],
        "prompt": [1, 0, 0, 0, 0, 0],
        "place": [0, 3, 3, 1, 3, 3],
        "wanted": [2, 0, 2, 2, 1, 2],
        "offset": [0, 0, 4, 0, 0, 2],
        "ids": [60, 0, 70, 80, 90, 80],
        "stages": [1, 0, 1, 2, 1, 2],
    }
    assert [array.dtype for array in new] == ["bool", *["int32"] * 6, "uint32", "int32"]
    nothing = admission([], [], slots=4, shards=2)
    assert {name: array.tolist() for name, array in nothing._asdict().items() if array.any()} == {
        "target": [2] * 4, "place": [2] * 4,
    }  # fmt: skip


class Shard:
    """What an onlooker knows of a shard while placements are made one by one."""

    def __init__(self, slots, begin, room):
        self.idle = {begin + i for i, slot in enumerate(slots) if slot.task is None}
        self.prompts = {slot.held for slot in slots} - {None}
        self.room = room

    def can_serve(self, waiting):
        return bool(self.idle and waiting and (self.room or self.prompts & waiting.keys()))


def check(found, waiting, slots, *, shards, lanes, room):
    """Goes through the placements in order, and finds every choice as it shall be."""
    size = len(slots) // shards
    some = [Shard(slots[n * size : (n + 1) * size], n * size, room) for n in range(shards)]
    left = {task.request: [*range(task.first, task.first + task.count)] for task in waiting}
    begun = [[] for _ in range(shards)]
    for slot, task, source, row in found.placements:
        number = slot // size
        shard = some[number]
        assert shard.can_serve(left)
        assert len(shard.idle) == max(len(each.idle) for each in some if each.can_serve(left))
        assert slot == min(shard.idle)
        assert task.count == min(lanes, len(left[task.request]))
        assert [*range(task.first, task.first + task.count)] == left[task.request][: task.count]
        if task.request not in shard.prompts:
            assert not shard.prompts & left.keys()  # what it holds has been drawn
            nowhere = [request for request in left if not any(request in each.prompts for each in some)]
            assert task.request == (nowhere or [*left])[0]
            begun[number].append(task.request)
            shard.prompts.add(task.request)
            shard.room -= 1
        assert (row is None) == (task.request not in begun[number])
        assert source is None or source // size == number
        shard.idle.remove(slot)
        del left[task.request][: task.count]
        if not left[task.request]:
            del left[task.request]
    assert found.prefill == begun
    assert all(len(prompts) <= room for prompts in begun)
    assert [(task.request, [*range(task.first, task.first + task.count)]) for task in found.waiting] == [*left.items()]
    assert not any(shard.can_serve(left) for shard in some)


def put(memory, new, prefill, shards):
    """Copies prompts as `decoding.admit` does, one after the other; what is read was not written in between."""
    size = len(memory) // shards
    for begin in range(0, len(memory), size):
        part = slice(begin, begin + size)
        copies = [pair for pair in zip(new.source[part], new.target[part], strict=True) if pair[1] < size]
        fills = [pair for pair in zip(new.prompt[part], new.place[part], strict=True) if pair[1] < size]
        assert not {source for source, _ in copies} & {target for _, target in copies}
        for source, target in copies:
            memory[begin + target] = memory[begin + source]
        for row, target in fills:
            memory[begin + target] = prefill[begin // size][row]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_and_goes_every_sample_is_drawn_once_from_its_own_prompt(seed):
    for life in range(40):
        live(random.Random(1000 * seed + life))


def live(chance):
    """A pool of random sizes, to which requests come and whose slots end at random."""
    shards, size, lanes = chance.choice([1, 2, 3, 4]), chance.randint(1, 8), chance.choice([1, 2, 3])
    room, number = chance.randint(1, size), 0
    slots, waiting = [Slot()] * (shards * size), []
    memory = [None] * len(slots)
    drawn, wanted = defaultdict(list), {}
    for _ in range(12):
        for _ in range(chance.choice([0, 1, 2, 2 * len(slots)])):
            wanted[number] = chance.randint(1, 3 * lanes + 2)
            waiting.append(Task(number, 0, wanted[number]))
            number += 1
        before = [None if slot.task is None else memory[s] for s, slot in enumerate(slots)]
        found = assign(waiting, slots, shards=shards, lanes=lanes, room=room)
        check(found, waiting, slots, shards=shards, lanes=lanes, room=room)
        requests = [Request(0, p.task.request, 1, [1], wanted[p.task.request]) for p in found.placements]
        put(memory, admission(found.placements, requests, slots=len(slots), shards=shards), found.prefill, shards)
        assert all(old is None or old == new for old, new in zip(before, memory, strict=True))
        for slot, task, _, _ in found.placements:
            assert memory[slot] == task.request
            slots[slot] = Slot(task, held=task.request)
            drawn[task.request] += range(task.first, task.first + task.count)
        waiting = found.waiting
        ends = chance.choice([0.1, 0.5, 1.0])
        slots = [slot._replace(task=None) if chance.random() < ends else slot for slot in slots]
    for request, count in wanted.items():
        left = next((task.count for task in waiting if task.request == request), 0)
        assert drawn[request] == [*range(count - left)]


def test_work_moves_to_the_first_of_fewer_slots_and_back():
    slots = [Slot(held=9), busy(0), Slot(), busy(1), Slot(), Slot(), busy(2), Slot()]
    assert moved(slots, 4, shards=1).tolist() == [1, 3, 6, -1]
    assert moved(slots, 4, shards=2).tolist() == [1, 3, 6, -1]
    assert moved(slots, 6, shards=2).tolist() == [1, 3, -1, 6, -1, -1]
    assert moved([busy(0), Slot(), Slot(), busy(1)], 8, shards=2).tolist() == [0, -1, -1, -1, 3, -1, -1, -1]
    assert moved(slots, 4, shards=2).dtype == np.int32


def test_the_fewest_slots_have_room_for_the_fullest_shard():
    slots = [Slot(), busy(0), busy(0), Slot(), Slot(), Slot(), busy(1), Slot()]
    assert fewest(slots, (2, 4, 6), shards=1) == 4
    assert fewest(slots, (2, 4, 6), shards=2) == 4
    assert fewest([busy(0)] * 3 + [Slot()] * 5, (2, 4, 6), shards=2) == 6
    assert fewest([busy(0)] * 4 + [Slot()] * 4, (2, 4, 6), shards=2) == 8
    assert fewest(slots, (), shards=2) == 8
    assert fewest([Slot()] * 8, (2, 4), shards=2) == 2
