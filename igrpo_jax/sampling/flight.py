"""One call of the sampler on the host: runs the programs until all requests are answered, and keeps time.

Each round fills idle slots with waiting samples, decodes until enough slots are idle again, and collects what those
have drawn. Which slot draws what is decided in `igrpo_jax.sampling.assignment`.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int

from igrpo_jax.config import SamplingConfig
from igrpo_jax.prompts import pad_prompts
from igrpo_jax.protocols import Layout
from igrpo_jax.sampling.admission import admission
from igrpo_jax.sampling.assignment import Slot, Task, assign, fewest, moved
from igrpo_jax.sampling.collected import Collected
from igrpo_jax.sampling.decoding import Limits, Slots
from igrpo_jax.sampling.draw import NO_TOKEN, Truncation
from igrpo_jax.sampling.programs import PARTS, Pool, Programs, smallest
from igrpo_jax.sampling.stopping import Text, lanes_to_stop
from igrpo_jax.types import KeyArray, PyTree, Request, Samples, Usage

PATIENCE = 32
"""Decode steps after which the host looks for stop strings, and for work that has arrived for idle slots."""

WAIT = 0.5
"""Seconds between looks at whether the run is to leave, while there is nothing to decode."""

REFILL = 32
"""Decoding stops for idle slots when one in so many is idle."""


class Call(NamedTuple):
    """What one call of the sampler works with; none of it changes during the call.

    Attributes:
      programs: the compiled programs of the pool.
      layout: puts arrays on the devices and fetches them.
      pool: the static sizes.
      view: the policy as `Model.sampling_view` lays it out.
      seed: the run's key, on the devices.
      step: the training step, on the devices.
      truncation: temperature and what is cut off the distribution, on the devices.
      stops: the stop ids, on the devices, filled up with -1.
      stop_ids: the same on the host.
      settings: the longest completion and the stop strings are read here.
      text: the text of token ids.
      follow: takes finished requests at once and promises those that follow from them.
      pause: called between programs; raises where the run is to leave.
    """

    programs: Programs
    layout: Layout
    pool: Pool
    view: PyTree
    seed: KeyArray
    step: Int[Array, ""]
    truncation: Truncation
    stops: Int[Array, " stops"]
    stop_ids: Int[np.ndarray, " stops"]
    settings: SamplingConfig
    text: Text
    follow: Callable[[list[tuple[Request, Samples]]], list[Future[list[Request]]]]
    pause: Callable[[], None] = lambda: None


class Flight:
    """The state of one call of the sampler.

    Attributes:
      call: what the call works with.
      numbers: gives each request the next number.
      unfinished: the requests some of whose completions are missing, by number.
      waiting: the samples that have no slot yet, a task for each request.
      following: requests that will follow from finished ones, as promised by `Call.follow`.
      slots: what each slot is used for.
      active: bool[S, W], lanes that are still drawing; this and the next one as last seen by the host.
      lengths: int[S, W], tokens that each active lane has drawn; 0 for the others.
      searched: int[S, W], how many of these were searched for stop strings.
      sizes: tokens that each slot's prefix, and each lane's cache, has room for now.
      state: the slots on the devices.
      steps: decode steps so far.
      row_steps: decode steps times the rows that each computed.
      tokens: decoded for finished requests.
      seconds: spent with work on the devices, by stage.
      waited: seconds spent without any.
    """

    def __init__(self, call: Call):
        """Begins with idle slots of the smallest sizes."""
        pool = call.pool
        self.call = call
        self.numbers = itertools.count()
        self.unfinished: dict[int, Collected] = {}
        self.waiting: list[Task] = []
        self.following: list[Future[list[Request]]] = []
        self.slots = [Slot()] * pool.slots
        self.active = np.zeros((pool.slots, pool.lanes), bool)
        self.lengths = np.zeros((pool.slots, pool.lanes), np.int32)
        self.searched = np.zeros((pool.slots, pool.lanes), np.int32)
        self.sizes: tuple[int, int] = (pool.prompts[0], pool.completions[0])
        self.state: Slots = call.programs.idle(call.view)
        self.steps, self.row_steps, self.tokens = 0, 0, 0
        self.seconds: dict[int, float] = {}
        self.waited = 0.0

    def run(self, requests: Sequence[Request]) -> Usage:
        """Answers these requests and all that follow from them."""
        self.ask(requests)
        while True:
            self.call.pause()
            for promise in self.arrived():
                self.ask(promise.result())
            started = time.perf_counter()
            self.admit()
            if self.busy():
                self.advance()
                self.charge(time.perf_counter() - started)
                self.harvest()
            elif self.following:
                self.wait()
                self.waited += time.perf_counter() - started
            else:
                return Usage(self.tokens, self.row_steps, self.seconds, self.waited)

    def arrived(self) -> list[Future[list[Request]]]:
        """Takes the promises that are kept out of `following`: the same ones in every process of the run."""
        if not self.following:
            return []
        kept = self.call.layout.agree(sum(promise.done() << i for i, promise in enumerate(self.following)))
        promises, self.following = self.following, []
        for i, promise in enumerate(promises):
            if not kept >> i & 1:
                self.following.append(promise)
        return [promise for i, promise in enumerate(promises) if kept >> i & 1]

    def wait(self) -> None:
        """Waits until some promise is kept, as the first process sees it, or the run is to leave."""
        while not self.call.layout.agree(int(any(map(Future.done, self.following)))):
            self.call.pause()
            wait(self.following, timeout=WAIT, return_when=FIRST_COMPLETED)

    def busy(self) -> dict[int, Task]:
        """The tasks that slots draw, by slot."""
        return {s: slot.task for s, slot in enumerate(self.slots) if slot.task}

    def ask(self, requests: Sequence[Request]) -> None:
        """Lets requests wait for a slot."""
        longest = self.call.pool.prompts[-1]
        for request in requests:
            if not 1 <= len(request.prompt) <= longest:
                raise ValueError(
                    f"prompt {request.index} has {len(request.prompt)} tokens; prompts need 1 to {longest}: raise "
                    "prompt.max_prompt_length or shorten the question"
                )
            number = next(self.numbers)
            self.unfinished[number] = Collected(request, self.call.settings.max_completion_length)
            self.waiting.append(Task(number, 0, request.num_samples))

    def admit(self) -> None:
        """Fills idle slots with waiting samples, in as many rounds as the room for prompts to prefill demands."""
        if self.waiting:
            self.move(self.call.pool.slots)
        while self.waiting and len(self.busy()) < len(self.slots):
            self.admit_some()

    def admit_some(self) -> None:
        """Fills idle slots once; what is prefilled for them is freed before the next round."""
        call, shards = self.call, self.call.layout.num_row_shards
        room = call.pool.prefill[-1] // shards
        placements, prompts, self.waiting = assign(
            self.waiting, self.slots, shards=shards, lanes=call.pool.lanes, room=room
        )
        for slot, task, *_ in placements:
            self.slots[slot] = Slot(task, held=task.request)
        arrived = self.prefill(prompts)
        self.fit()
        requests = [self.unfinished[task.request].request for _, task, *_ in placements]
        new = call.layout.rows(admission(placements, requests, slots=len(self.slots), shards=shards))
        self.state = call.programs.admit(self.state, arrived=arrived, new=new, seed=call.seed, step=call.step)

    def prefill(self, chosen: list[list[int]]) -> Any:
        """Prefills the prompts of chosen requests, a list for each shard; None if none are chosen.

        All shards prefill the same number of prompts, so the shorter lists are filled up with prompts of one token.
        """
        pool, most = self.call.pool, max(map(len, chosen))
        if not most:
            return None
        each = smallest(pool.prefill, most * len(chosen)) // len(chosen)
        prompts = [[self.unfinished[number].request.prompt for number in some] for some in chosen]
        rows = [prompt for some in prompts for prompt in [*some, *[[0]] * (each - len(some))]]
        padded = pad_prompts(rows, smallest(pool.prompts, max(map(len, rows))))
        return self.call.programs.prefill(self.call.view, *self.call.layout.rows(padded))

    def fit(self) -> None:
        """Gives prefixes and caches the smallest sizes that hold what is in flight, for some steps at least."""
        call = self.call
        if len(self.slots) < call.pool.slots:
            return  # only slots of the largest sizes are ever moved to fewer, see `shrink`
        longest = max(len(self.unfinished[task.request].request.prompt) for task in self.busy().values())
        ahead = min(int(self.lengths.max()) + PATIENCE, call.settings.max_completion_length)
        sizes = smallest(call.pool.prompts, longest), smallest(call.pool.completions, ahead)
        if sizes[0] < self.sizes[0]:  # then longer prompts are lost, which only idle slots can hold
            kept = {n for n, one in self.unfinished.items() if len(one.request.prompt) <= sizes[0]}
            self.slots = [slot if slot.held in kept else Slot() for slot in self.slots]
        for part, now, then in zip(("prefix", "cache"), self.sizes, sizes, strict=True):
            self.state = call.programs.resize(self.state, part, now, then)
        self.sizes = sizes

    def shrink(self) -> None:
        """Goes on with fewer slots if there are no other requests for the idle ones.

        Others can still follow from those that are being answered. Then `admit` returns to all slots.
        """
        pool = self.call.pool
        largest = self.sizes == (pool.prompts[-1], pool.completions[-1])
        if largest and not self.waiting and not self.following:
            self.move(fewest(self.slots, pool.tails, shards=self.call.layout.num_row_shards))

    def move(self, number: int) -> None:
        """Moves all tasks to the first of so many slots, shard by shard; idle slots keep no prompts."""
        layout, now = self.call.layout, len(self.slots)
        if number == now:
            return
        origins = moved(self.slots, number, shards=layout.num_row_shards)
        real = origins >= 0
        self.slots = [self.slots[origin] if origin >= 0 else Slot() for origin in origins]
        self.active, self.lengths, self.searched = (
            x[origins] * real[:, None] for x in (self.active, self.lengths, self.searched)
        )
        index = layout.rows(np.where(real, origins % (now // layout.num_row_shards), np.int32(-1)))
        for part in PARTS:
            self.state = self.call.programs.move(self.state, part, index, now)

    def advance(self) -> None:
        """Decodes until there may be something for the host to do, and then learns what the lanes have done."""
        self.fit()
        self.shrink()
        call, busy, slots = self.call, len(self.busy()), len(self.slots)
        wake = slots - busy + min(-(-slots // REFILL), busy)
        soon = call.settings.stop_strings or (self.following and busy < call.pool.slots)
        length = call.settings.max_completion_length
        limits = Limits(*map(np.int32, (length, self.sizes[1], wake, PATIENCE if soon else length)))
        self.state = call.programs.decode(
            call.view, call.truncation, call.stops, call.layout.everywhere(limits), state=self.state
        )
        self.look()
        if call.settings.stop_strings:
            self.halt()

    def look(self) -> None:
        """Waits for the devices and fetches what every lane does."""
        state = self.state
        active, lengths, last, steps = self.call.layout.fetch((state.active, state.lengths, state.last, state.steps))
        self.refuse_broken(lengths, last)
        self.row_steps += (int(steps) - self.steps) * active.size
        self.active, self.lengths, self.steps = active, np.where(active, lengths, 0), int(steps)

    def refuse_broken(self, lengths: np.ndarray, last: np.ndarray) -> None:
        """Raises if a lane's last token could not be drawn; decoding has ended the lane at it."""
        for slot, lane in zip(*np.nonzero(last == NO_TOKEN), strict=True):
            task = self.slots[slot].task
            request = self.unfinished[task.request].request if task else None
            which = f"prompt {request.index} (stage {request.stage})" if request else "a prompt"
            raise ValueError(
                f"token {lengths[slot, lane]} of a completion of {which} cannot be drawn: the model's logits are NaN "
                "or infinite; begin in another --workdir with --model.dtype float32 or a lower optim.learning_rate"
            )

    def halt(self) -> None:
        """Ends the lanes whose text holds a stop string."""
        call = self.call
        stop = lanes_to_stop(
            call.layout.fetch(self.state.tokens), self.lengths, self.searched, self.active,
            strings=call.settings.stop_strings, text=call.text,
        )  # fmt: skip
        self.searched = np.where(self.active & ~stop, self.lengths, 0)
        if stop.any():
            self.state = call.programs.halt(self.state, call.layout.rows(stop))
            self.look()

    def charge(self, seconds: float) -> None:
        """Divides time among the stages by the slots that they occupy."""
        stages = Counter(self.unfinished[task.request].request.stage for task in self.busy().values())
        for stage, slots in stages.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + slots / stages.total() * seconds

    def harvest(self) -> None:
        """Empties the slots all of whose lanes have ended, and hands on the requests that are complete."""
        call, finished = self.call, []
        done = {s: task for s, task in self.busy().items() if not self.active[s].any()}
        if not done:
            return
        arrays = call.layout.fetch((self.state.tokens, self.state.logprobs, self.state.lengths))
        for s, task in done.items():
            self.slots[s] = Slot(held=task.request)
            collected = self.unfinished[task.request]
            collected.add(task, *(x[s] for x in arrays))
            if not collected.missing:
                del self.unfinished[task.request]
                self.tokens += int((collected.lengths - 1).sum())  # the first of each comes from prefill
                samples = collected.samples(call.stop_ids, call.settings.stop_strings, call.text)
                finished.append((collected.request, samples))
        if finished:
            self.following += call.follow(finished)
