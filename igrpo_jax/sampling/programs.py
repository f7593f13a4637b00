"""The sizes that the programs of sampling are compiled for, and these programs."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from igrpo_jax.protocols import Layout, Model
from igrpo_jax.sampling.admission import admission
from igrpo_jax.sampling.decoding import Limits, Slots, admit, decode, move
from igrpo_jax.sampling.draw import Truncation
from igrpo_jax.types import KeyArray, PyTree

MAX_STOP_IDS = 8
"""Stop ids are padded to this many, so that another stop set compiles nothing."""

TOGETHER = 1024
"""Tokens of prompts that a device prefills at once if so many wait, because matrices of few rows multiply slowly."""

PARTS = ("prefix", "cache", "small")
"""The parts of `Slots` that are moved one after the other, so that only one of them exists twice at a time."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """How much is sampled at once: the sizes that, with the model, decide which programs are compiled.

    Numbers of slots and of prompts are multiples of the row shards. Where there are several sizes they rise.

    Attributes:
      slots: prompts that are in flight at once.
      lanes: completions of one prompt that are decoded together, on one copy of its prefix.
      prefill: numbers of prompts that are prefilled at once.
      prompts: lengths that prompts are padded to; none is longer than the last.
      completions: tokens that the caches of completions have room for; no completion is longer than the last.
      tails: smaller numbers of slots, for the last prompts in flight.
    """

    slots: int
    lanes: int
    prefill: tuple[int, ...]
    prompts: tuple[int, ...]
    completions: tuple[int, ...]
    tails: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens whose keys and values the prefixes and caches have room for at their largest."""
        return self.slots * (self.prompts[-1] + self.lanes * self.completions[-1])


def make_pool(
    *, rows: int, problems: int, groups: Sequence[int], shards: int, prompts: Sequence[int], max_completion_length: int
) -> Pool:
    """Chooses a pool that decodes so many rows.

    If the rows suffice, all problems are in flight at once, and the completions of a prompt share one prefix. If not,
    every completion has a slot of its own, which is filled again as soon as the completion ends; the slot of a whole
    group would be busy until its longest completion ends. The price is a copy of the prefix for every completion. It
    is worth it if lengths differ much and prompts are not longer than completions.

    Args:
      rows: completions a device decodes at once; 0 for as many as `problems` have.
      problems: prompts that are sampled together.
      groups: the numbers of completions that requests ask for.
      shards: devices that hold different rows.
      prompts: prompt lengths to pad to.
      max_completion_length: T.
    """
    # If not all groups are multiples of the smallest, there are lanes for the largest, and others leave some idle.
    # That is better than several slots, each with a copy of the prompt.
    lanes = min(groups) if math.gcd(*groups) == min(groups) else max(groups)
    slots = -(-problems // shards) * (max(groups) // lanes)
    if rows and rows < slots * lanes:
        slots, lanes = rows, 1
    few = -(-slots * lanes // (16 * max(groups)))  # a sixteenth of the prompts in flight
    many = max(few, min(slots, TOGETHER // max(prompts)))
    return Pool(
        slots=slots * shards,
        lanes=lanes,
        prefill=tuple(shards * size for size in sorted({few, many})),
        prompts=tuple(sorted(set(prompts))),
        completions=tuple(capacities(max_completion_length)),
        tails=tuple(shards * size for size in sorted({-(-slots // 4), -(-slots // 2)} - {slots})),
    )


def capacities(size: int, first: int = 64) -> list[int]:
    """The sizes of a cache that grows with completions of up to `size` tokens: at most four, powers of two and `size`.

    >>> capacities(200), capacities(4096)
    ([64, 128, 200], [512, 1024, 2048, 4096])
    """
    sizes = [size]
    while sizes[0] > first and len(sizes) < 4:
        sizes.insert(0, max(1 << ((sizes[0] - 1).bit_length() - 1), first))
    return sizes


def padded_stops(stop_ids: Sequence[int]) -> np.ndarray:
    """Stop ids as int32[MAX_STOP_IDS], filled up with -1, which is no token's id.

    Raises:
      ValueError: too many stop ids, or none.
    """
    if not 0 < len(stop_ids) <= MAX_STOP_IDS:
        raise ValueError(f"{len(stop_ids)} stop ids were given; give 1 to {MAX_STOP_IDS}")
    stops = np.full(MAX_STOP_IDS, -1, np.int32)
    stops[: len(stop_ids)] = list(stop_ids)
    return stops


def smallest(sizes: Sequence[int], needed: int) -> int:
    """The smallest of the sizes that is not less than what is needed."""
    return min(size for size in sizes if size >= needed)


Wrap = Callable[[str, Any], Callable]
"""Takes a program's name and the jitted function; returns the function that is called in its place."""


def as_is(name: str, jitted: Any) -> Callable:
    """The `Wrap` that changes nothing."""
    return jitted


class Programs:
    """The functions that run on the devices, compiled for one pool.

    Where the slots lie on the devices is always the same, so that no function is compiled twice for one size.
    """

    def __init__(
        self, model: Model, layout: Layout, pool: Pool, view: PyTree, seed: KeyArray | jax.ShapeDtypeStruct,
        wrap: Wrap = as_is,
    ):  # fmt: skip
        """Compiles everything, by running each program once with nothing to do.

        Args:
          model: see `igrpo_jax.protocols.Model`.
          layout: see `igrpo_jax.protocols.Layout`.
          pool: the sizes.
          view: any sampling view; its values do not matter, only its shapes and where it lies.
          seed: the run's key, on the devices.
          wrap: gets every program by name and returns the function that is called in its place. That is the program
            itself, or for devices that do not exist a function that only compiles it.
        """
        self._model, self._layout, self._pool = model, layout, pool
        self.prefill = wrap("prefill", jax.jit(model.prefill))
        self._empty = wrap("empty", jax.jit(self._empty_caches))
        prompts = jax.ShapeDtypeStruct((pool.slots, 1), np.int32), jax.ShapeDtypeStruct((pool.slots,), np.int32)
        # Once, and not in `idle`: JAX keeps what `eval_shape` traces, 50 objects a call.
        self._hidden = jax.eval_shape(model.prefill, view, *prompts)[0]
        self._words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
        state = self.idle(view)
        places = jax.tree.map(lambda x: x.sharding, state)
        admitting = jax.jit(
            partial(admit, shards=layout.num_row_shards), donate_argnames=("state",),
            out_shardings=places._replace(cache=None),
        )  # fmt: skip
        decoding = jax.jit(partial(decode, model), donate_argnames=("state",), out_shardings=places)
        halting = jax.jit(lambda active, lanes: active & jnp.logical_not(lanes), out_shardings=places.active)
        self._admit, self.decode = wrap("admit", admitting), wrap("decode", decoding)
        self._halt = wrap("halt", halting)
        fit = partial(jax.jit, model.resize, static_argnames=("capacity",))
        self._fit = {
            part: wrap(f"resize {part}", fit(out_shardings=getattr(places, part))) for part in ("prefix", "cache")
        }
        moving = partial(jax.jit, partial(move, shards=layout.num_row_shards), static_argnames=("slots",))
        small = places._replace(prefix=None, cache=None)
        parts = {"prefix": places.prefix, "cache": places.cache, "small": small}
        self._move = {part: wrap(f"move {part}", moving(out_shardings=place)) for part, place in parts.items()}
        self._run_all(view, state, seed)

    def idle(self, view: PyTree) -> Slots:
        """Idle slots, with room for the shortest prompts and completions."""
        pool, rows = self._pool, self._layout.rows
        prefix, cache = self._empty(view)
        shape = (pool.slots, pool.lanes)
        text = (*shape, pool.completions[-1])
        return Slots(
            prefix=prefix,
            cache=cache,
            first=rows(np.zeros(self._hidden.shape, self._hidden.dtype)),
            keys=rows(np.zeros((*shape, *self._words), np.uint32)),
            active=rows(np.zeros(shape, bool)),
            last=rows(np.zeros(shape, np.int32)),
            lengths=rows(np.zeros(shape, np.int32)),
            tokens=rows(np.zeros(text, np.int32)),
            logprobs=rows(np.zeros(text, np.float32)),
            steps=self._layout.everywhere(np.int32(0)),
        )

    def admit(self, state: Slots, **work: Any) -> Slots:
        """Fills slots with new samples, see `decoding.admit`; the old state must not be used again.

        The program does not get the caches, so one serves all their sizes.
        """
        return self._admit(state._replace(cache=None), **work)._replace(cache=state.cache)

    def halt(self, state: Slots, lanes: Any) -> Slots:
        """Ends the completions of the given lanes, bool[S, W]."""
        return state._replace(active=self._halt(state.active, lanes))

    def resize(self, state: Slots, part: str, now: int, then: int) -> Slots:
        """Gives the slots room for longer or shorter prompts (part `prefix`) or completions (part `cache`).

        The part is not changed in place: it exists twice as long as somebody holds the old state.

        Args:
          state: the slots.
          part: `prefix` or `cache`.
          now: tokens that there is room for.
          then: tokens that there shall be room for.
        """
        if now == then:
            return state
        return state._replace(**{part: self._fit[part](getattr(state, part), capacity=then)})

    def move(self, state: Slots, part: str, index: Any, slots: int) -> Slots:
        """Moves one of the `PARTS` of the slots, `small` being all but prefix and cache; see `decoding.move`.

        Args:
          state: the slots, the other parts of which may have been moved already.
          part: which part.
          index: which old slot each new one takes over.
          slots: how many there were.
        """
        if part != "small":
            return state._replace(**{part: self._move[part](getattr(state, part), index, slots=slots)})
        moved = self._move[part](state._replace(prefix=None, cache=None), index, slots=slots)
        return moved._replace(prefix=state.prefix, cache=state.cache)

    def _empty_caches(self, view: PyTree) -> tuple[PyTree, PyTree]:
        """A prefix and a cache of the smallest sizes."""
        prefix = self._model.new_prefix(view, self._pool.slots, self._pool.prompts[0])
        return prefix, self._model.new_cache(view, prefix, self._pool.lanes, self._pool.completions[0])

    def _run_all(self, view: PyTree, state: Slots, seed: Any) -> None:
        """Runs every program in every size that can occur, with nothing to do, so that all are compiled."""
        pool, rows, everywhere = self._pool, self._layout.rows, self._layout.everywhere
        truncation = Truncation(np.float32(1), np.int32(0), np.float32(1), np.float32(0))
        none = np.int32(0)
        truncation, stops, limits, step = everywhere(
            (truncation, padded_stops([0]), Limits(none, none, none, none), none)
        )
        nothing = rows(admission([], [], slots=pool.slots, shards=self._layout.num_row_shards))
        arrived: list[Any] = [None]
        sizes = (pool.prompts[0], pool.completions[0])
        for prompt in pool.prompts:
            for size in pool.prefill:
                text = rows((np.zeros((size, prompt), np.int32), np.ones(size, np.int32)))
                arrived.append(self.prefill(view, *text))
            state = self.resize(state, "prefix", sizes[0], prompt)
            for own in pool.completions:
                state, sizes = self.resize(state, "cache", sizes[1], own), (prompt, own)
                state = self.decode(view, truncation, stops, limits, state=state)
            for some in arrived:
                state = self.admit(state, arrived=some, new=nothing, seed=seed, step=step)
            state = self.halt(state, rows(np.zeros((pool.slots, pool.lanes), bool)))
        del arrived, some
        now = pool.slots
        for then in (*itertools.chain(*itertools.permutations((pool.slots, *pool.tails), 2)), pool.slots):
            if then == now:
                continue
            for part in PARTS:
                state = self.move(state, part, rows(np.full(then, -1, np.int32)), now)
            if then < now:
                state = self.decode(view, truncation, stops, limits, state=state)
                state = self.halt(state, rows(np.zeros((then, pool.lanes), bool)))
            now = then
        prefix, cache = state.prefix, state.cache
        del state  # while one of them is resized, only that one may exist twice, as in a run
        for prompt in itertools.chain(*itertools.permutations(pool.prompts, 2)):
            prefix = self._fit["prefix"](prefix, capacity=prompt)
        for own in itertools.chain(*itertools.permutations(pool.completions, 2)):
            cache = self._fit["cache"](cache, capacity=own)
