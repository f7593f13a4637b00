"""The host side of sampling: who waits, who is in which slot, and what comes back."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.config import SamplingConfig
from igrpo_jax.prompts import pad_prompts
from igrpo_jax.sampling.decoding import Admission, Limits
from igrpo_jax.sampling.draw import NO_TOKEN
from igrpo_jax.sampling.programs import PARTS, Pool, no_admission
from igrpo_jax.types import Request, Samples, Usage

PATIENCE = 32
"""Decode steps after which the host looks for stop strings, and for work that has arrived for idle slots."""

OVERLAP = 4
"""Tokens decoded again, besides as many as a stop string has bytes: a character may be cut in two."""

REFILL = 32
"""One in so many slots are idle before they are filled; each time decoding stops for it."""


class _Job:
    """A request on its way."""

    def __init__(self, request: Request, size: int):
        """Room for samples of up to `size` tokens; `taken` counts those handed out, `missing` those not back yet."""
        group = request.num_samples
        self.request, self.taken, self.missing = request, 0, group
        self.tokens = np.zeros((group, size), np.int32)
        self.logprobs = np.zeros((group, size), np.float32)
        self.lengths = np.zeros(group, np.int32)


class _Task(NamedTuple):
    """The part of a job that occupies a slot."""

    job: _Job
    offset: int
    count: int


class Flight:
    """One call of the sampler: who waits, who is in which slot, and what comes back."""

    def __init__(
        self, programs, layout, pool: Pool, view, seed, truncation, stops, step, *, stop_set: np.ndarray,
        settings: SamplingConfig, text: Callable, follow: Callable[[list], Future],
    ):  # fmt: skip
        self.programs, self.layout, self.pool, self.view = programs, layout, pool, view
        self.seed, self.truncation, self.stops, self.step = seed, truncation, stops, step
        self.stop_set, self.settings, self.text, self.follow = stop_set, settings, text, follow
        self.waiting: deque[_Job] = deque()
        self.following: deque[Future] = deque()
        self.tasks: list[_Task | None] = [None] * pool.slots
        self.held: list[_Job | None] = [None] * pool.slots  # whose prompt is there, also when the slot is idle
        self.active = np.zeros((pool.slots, pool.lanes), bool)
        self.lengths = np.zeros((pool.slots, pool.lanes), int)
        self.looked = self.lengths  # how much of each lane was searched for stop strings
        self.sizes = (pool.prompts[0], pool.completions[0])
        self.state: Any = programs.idle(view)
        self.seconds: dict[int, float] = {}
        self.steps = self.row_steps = self.tokens = 0
        self.waited = 0.0

    def run(self, requests: Sequence[Request]) -> Usage:
        """Goes on until nothing is left."""
        self.ask(requests)
        while True:
            for _ in range(self.arrived()):
                self.ask(self.following.popleft().result())
            started = time.perf_counter()
            self.admit()
            if any(self.tasks):
                self.advance()
                self.charge(time.perf_counter() - started)
                self.harvest()
            elif self.following:
                self.following[0].exception()
                self.waited += time.perf_counter() - started
            else:
                return Usage(self.tokens, self.row_steps, self.seconds, self.waited)

    def arrived(self) -> int:
        """How many results of `follow` have come, in order; the same number in every process, though not at once."""
        if not self.following:
            return 0
        return self.layout.agree(sum(1 for _ in itertools.takewhile(Future.done, self.following)))

    def ask(self, requests: Sequence[Request]) -> None:
        """Lets requests wait for a slot."""
        longest = self.pool.prompts[-1]
        for request in requests:
            if not 1 <= len(request.prompt) <= longest:
                raise ValueError(
                    f"prompt {request.index} has {len(request.prompt)} tokens; prompts need 1 to {longest}: raise "
                    "prompt.max_prompt_length or shorten the question"
                )
            self.waiting.append(_Job(request, self.settings.max_completion_length))

    def admit(self) -> None:
        """Fills idle slots with waiting work, as many prompts at a time as are prefilled at once."""
        if self.waiting:
            self.move(self.pool.slots)
        while self.waiting and None in self.tasks:
            new, texts = self.choose()
            arrived = None
            if texts:
                longest = max(map(len, texts))
                size = min(n for n in self.pool.prompts if n >= longest)
                arrived = self.programs.prefill(self.view, *self.layout.rows(pad_prompts(texts, size)))
            self.fit()
            self.state = self.programs.admit(
                self.state, arrived=arrived, new=self.layout.rows(new), seed=self.seed, step=self.step
            )

    def choose(self) -> tuple[Admission, list[list[int]]]:
        """Gives waiting samples to idle slots; the admission, and the prompts to prefill, shard after shard.

        A shard goes on with prompts that its slots hold already; else it begins one that no other shard holds.
        """
        pool, shards = self.pool, self.layout.num_row_shards
        slots, room = pool.slots // shards, pool.prefill[-1] // shards
        new = no_admission(pool.slots, shards)
        idle = [[s for s in range(n * slots, (n + 1) * slots) if self.tasks[s] is None] for n in range(shards)]
        held = [self.held[n * slots : (n + 1) * slots] for n in range(shards)]
        places = [{job: slot for slot, job in enumerate(some) if job} for some in held]
        known = {job for some in places for job in some}
        fresh: list[list[_Job]] = [[] for _ in range(shards)]
        copies: list[list[tuple[int, int]]] = [[] for _ in range(shards)]
        fills: list[list[tuple[int, int]]] = [[] for _ in range(shards)]

        def pick(shard: int) -> _Job | None:
            here = next((job for job in self.waiting if job in places[shard]), None)
            if here is None and len(fresh[shard]) < room:
                here = next((job for job in self.waiting if job not in known), self.waiting[0])
            return here

        while self.waiting:
            emptiest = sorted((n for n in range(shards) if idle[n]), key=lambda n: -len(idle[n]))
            shard, job = next(((n, job) for n in emptiest if (job := pick(n))), (0, None))
            if job is None:
                break
            slot, request = idle[shard].pop(0), job.request
            target = slot - shard * slots
            if job not in places[shard]:
                places[shard][job] = target
                fresh[shard].append(job)
                known.add(job)
            if job in fresh[shard]:
                fills[shard].append((fresh[shard].index(job), target))
            elif places[shard][job] != target:
                copies[shard].append((places[shard][job], target))
            new.fresh[slot], new.offset[slot] = True, job.taken
            new.wanted[slot] = count = min(pool.lanes, request.num_samples - job.taken)
            new.ids[slot], new.stages[slot] = request.id, request.stage
            self.tasks[slot], self.held[slot] = _Task(job, job.taken, count), job
            self.lengths[slot], job.taken = 0, job.taken + count
            if job.taken == request.num_samples:
                self.waiting.remove(job)
        # A shard holds the prompt of one waiting job at most and takes that first: nothing is overwritten that is read.
        for pairs, origins, goals in ((copies, new.source, new.target), (fills, new.prompt, new.place)):
            for shard, some in enumerate(pairs):
                for i, pair in enumerate(some, start=shard * slots):
                    origins[i], goals[i] = pair
        most = max(map(len, fresh))
        if not most:
            return new, []
        room = min(size // shards for size in pool.prefill if size // shards >= most)
        rows = [some[i] if i < len(some) else None for some in fresh for i in range(room)]
        return new, [job.request.prompt if job else [0] for job in rows]

    def shrink(self) -> None:
        """Decodes fewer slots where nothing is left to fill the idle ones, but for what may follow from the others."""
        pool = self.pool
        if self.waiting or self.following or self.sizes != (pool.prompts[-1], pool.completions[-1]):
            return
        taken = np.array([task is not None for task in self.tasks]).reshape(self.layout.num_row_shards, -1)
        needed = int(taken.sum(axis=1).max()) * len(taken)
        self.move(min((n for n in pool.tails if n >= needed), default=len(self.tasks)))

    def move(self, slots: int) -> None:
        """Moves all tasks to the first of so many slots, shard by shard."""
        now, shards = len(self.tasks), self.layout.num_row_shards
        if slots == now:
            return
        index = np.full((shards, slots // shards), -1, np.int32)
        begins = np.arange(shards) * (now // shards)
        for row, begin in zip(index, begins, strict=True):
            taken = [i for i, task in enumerate(self.tasks[begin : begin + now // shards]) if task]
            row[: len(taken)] = taken
        real, places = (index >= 0).ravel(), (index + begins[:, None]).ravel()
        self.tasks = [self.tasks[place] if here else None for here, place in zip(real, places, strict=True)]
        self.held = [task and task.job for task in self.tasks]
        self.active, self.lengths, self.looked = (
            x[places] * real[:, None] for x in (self.active, self.lengths, self.looked)
        )
        index = self.layout.rows(index.ravel())
        for part in PARTS:
            self.state = self.programs.move(self.state, part, index, now)

    def fit(self) -> None:
        """Gives prefixes and caches the smallest sizes that hold what is in flight, for some steps at least."""
        if len(self.tasks) < self.pool.slots:
            return  # they are the largest
        longest = max(len(task.job.request.prompt) for task in self.tasks if task)
        ahead = min(int(self.lengths.max()) + PATIENCE, self.settings.max_completion_length)
        sizes = (
            min(n for n in self.pool.prompts if n >= longest),
            min(n for n in self.pool.completions if n >= ahead),
        )
        self.held = [job if job and len(job.request.prompt) <= sizes[0] else None for job in self.held]
        for part, now, then in zip(("prefix", "cache"), self.sizes, sizes, strict=True):
            self.state = self.programs.resize(self.state, part, now, then)
        self.sizes = sizes

    def advance(self) -> None:
        """Decodes until enough slots are idle to be filled together, and learns what every lane does."""
        self.fit()
        self.shrink()
        active, slots = sum(task is not None for task in self.tasks), len(self.tasks)
        wake = slots - active + min(-(-slots // REFILL), active)
        soon = self.settings.stop_strings or (self.following and active < self.pool.slots)
        length = self.settings.max_completion_length
        limits = Limits(*map(np.int32, (length, self.sizes[1], wake, PATIENCE if soon else length)))
        self.state = self.programs.decode(
            self.view, self.truncation, self.stops, self.layout.everywhere(limits), state=self.state
        )
        self.look()
        if self.settings.stop_strings:
            self.halt()

    def look(self) -> None:
        """Waits for the device and fetches what every lane does."""
        state = self.state
        active, lengths, last, steps = self.layout.fetch((state.active, state.lengths, state.last, state.steps))
        self.refuse_broken(lengths, last)
        self.row_steps += (int(steps) - self.steps) * active.size
        self.active, self.lengths, self.steps = active, np.where(active, lengths, 0), int(steps)

    def refuse_broken(self, lengths: np.ndarray, last: np.ndarray) -> None:
        """Raises if a lane's last token could not be drawn; decoding has ended the lane at it."""
        for slot, lane in zip(*np.nonzero(last == NO_TOKEN), strict=True):
            task = self.tasks[slot]
            which = f"prompt {task.job.request.index} (stage {task.job.request.stage})" if task else "a prompt"
            raise ValueError(
                f"token {lengths[slot, lane]} of a completion of {which} cannot be drawn: the model's logits are NaN "
                "or infinite; compute with --model.dtype float32, or go back to a checkpoint before the weights broke "
                "and lower optim.learning_rate"
            )

    def halt(self) -> None:
        """Ends the lanes whose text holds a stop string; of what was looked at before only the end is decoded again.

        A string across that border may be missed where a token has no text. That costs steps: `cut` finds it.
        """
        tokens = self.layout.fetch(self.state.tokens)
        stop = np.zeros(self.active.shape, bool)
        again = OVERLAP + max(len(s.encode()) for s in self.settings.stop_strings)
        for row in zip(*np.nonzero(self.active), strict=True):
            text = self.text(tokens[row][max(self.looked[row] - again, 0) : self.lengths[row]].tolist())
            stop[row] = any(s in text for s in self.settings.stop_strings)
        self.looked = np.where(self.active & ~stop, self.lengths, 0)
        if stop.any():
            self.state = self.programs.halt(self.state, self.layout.rows(stop))
            self.look()

    def charge(self, seconds: float) -> None:
        """Divides time among the stages by the slots that they occupy."""
        stages = [task.job.request.stage for task in self.tasks if task]
        for stage in set(stages):
            share = stages.count(stage) / len(stages)
            self.seconds[stage] = self.seconds.get(stage, 0.0) + share * seconds

    def harvest(self) -> None:
        """Empties the slots that are done, and hands on the requests that are complete."""
        done = [(s, task) for s, task in enumerate(self.tasks) if task and not self.active[s].any()]
        if not done:
            return
        tokens, logprobs, lengths = self.layout.fetch((self.state.tokens, self.state.logprobs, self.state.lengths))
        finished, size = [], self.settings.max_completion_length
        for slot, (job, offset, count) in done:
            self.tasks[slot] = None
            rows = slice(offset, offset + count)
            job.tokens[rows], job.logprobs[rows] = tokens[slot, :count, :size], logprobs[slot, :count, :size]
            job.lengths[rows] = lengths[slot, :count]
            job.missing -= count
            if not job.missing:
                finished.append((job.request, self.cut(job)))
        if finished:
            self.following.append(self.follow(finished))

    def cut(self, job: _Job) -> Samples:
        """The samples of a complete job, each ended behind its first stop string, nothing behind their ends."""
        tokens, logprobs, lengths = job.tokens, job.logprobs, job.lengths
        self.tokens += int((lengths - 1).sum())
        ended = np.isin(np.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0], self.stop_set)
        for row in range(len(lengths)) if self.settings.stop_strings else ():
            stop = stop_string_length(tokens[row][: lengths[row]].tolist(), self.settings.stop_strings, self.text)
            if stop is not None:
                lengths[row], ended[row] = stop, True
        beyond = np.arange(tokens.shape[1]) >= lengths[:, None]
        tokens[beyond], logprobs[beyond] = 0, 0.0
        return Samples(tokens, lengths, ended, logprobs)


def stop_string_length(tokens: list[int], strings: tuple[str, ...], decode: Callable) -> int | None:
    """Number of leading tokens whose text first holds a stop string; None if it never does.

    Found by bisection: once a prefix of the completion holds the string, every longer prefix does.
    """
    found = lambda n: any(s in decode(tokens[:n]) for s in strings)
    if not found(len(tokens)):
        return None
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle + 1, high)
    return low
