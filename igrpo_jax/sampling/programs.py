"""The static sizes of sampling, and the programs compiled for them."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from igrpo_jax.sampling.admission import admission
from igrpo_jax.sampling.decoding import Limits, Slots, admit, decode, move
from igrpo_jax.sampling.draw import Truncation
from igrpo_jax.types import KeyArray, Layout, Model, PyTree

MAX_STOP_IDS = 8
"""Stop ids are padded to this many, so that another stop set compiles nothing."""


TOGETHER = 1024
"""Tokens of prompts that a device prefills at once if so many wait; few rows are multiplied slowly."""


PARTS = ("prefix", "cache", "small")
"""Of what is in flight, in which it is moved: so only one of them is there twice."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The static sizes of everything in flight; with the model they fix every program.

    Attributes:
      slots: prompts in flight, a multiple of the row shards.
      lanes: completions of one prompt that are decoded together, on one copy of its prefix.
      prefill: rising numbers of prompts that are prefilled at once, multiples of the row shards.
      prompts: rising lengths that prompts are padded to; the last holds the longest.
      completions: rising sizes of the own-token cache; the last is the longest completion.
      tails: rising numbers of slots, multiples of the row shards, for the last prompts in flight.
    """

    slots: int
    lanes: int
    prefill: tuple[int, ...]
    prompts: tuple[int, ...]
    completions: tuple[int, ...]
    tails: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Keys and values that there is room for at most, in tokens."""
        return self.slots * (self.prompts[-1] + self.lanes * self.completions[-1])


def make_pool(
    *, rows: int, problems: int, groups: Sequence[int], shards: int, prompts: Sequence[int], max_completion_length: int
) -> Pool:
    """Divides the rows among prompts.

    All problems are in flight at once where the rows suffice for it, a group on one prefix. Else every completion has
    a slot of its own, to be filled again as soon as it ends: groups would wait for their longest completion. Its price
    is a copy of the prefix for every row, which pays where lengths differ much and prompts are not the longer part.

    Args:
      rows: completions a device decodes at once; 0 for as many as `problems` have.
      problems: prompts that are sampled together.
      groups: numbers of completions of a prompt.
      shards: devices that hold different rows.
      prompts: prompt lengths to pad to.
      max_completion_length: T.
    """
    # Groups that are no multiples of the smallest leave lanes idle instead of copying their prompt.
    lanes = min(groups) if math.gcd(*groups) == min(groups) else max(groups)
    slots = -(-problems // shards) * (max(groups) // lanes)
    if rows and rows < slots * lanes:
        slots, lanes = rows, 1
    few = -(-slots * lanes // (16 * max(groups)))  # of the prompts in flight
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
    """Cache sizes that completions of up to `size` tokens grow through: powers of two and `size`, at most four.

    >>> capacities(200), capacities(4096)
    ([64, 128, 200], [512, 1024, 2048, 4096])
    """
    sizes = [size]
    while sizes[0] > first and len(sizes) < 4:
        sizes.insert(0, max(1 << ((sizes[0] - 1).bit_length() - 1), first))
    return sizes


def padded_stops(stop_ids: Sequence[int]) -> np.ndarray:
    """int32[MAX_STOP_IDS], filled up with -1, which no token is.

    Raises:
      ValueError: too many stop ids, or none.
    """
    if not 0 < len(stop_ids) <= MAX_STOP_IDS:
        raise ValueError(f"{len(stop_ids)} stop ids were given; give 1 to {MAX_STOP_IDS}")
    stops = np.full(MAX_STOP_IDS, -1, np.int32)
    stops[: len(stop_ids)] = list(stop_ids)
    return stops


def smallest(sizes: Sequence[int], needed: int) -> int:
    """The smallest of some sizes that is not below what is needed."""
    return min(size for size in sizes if size >= needed)


Wrap = Callable[[str, Any], Callable]
"""Takes the name of a program and the jitted function, and returns what is called in its place."""


def as_is(name: str, jitted: Any) -> Callable:
    """`Wrap` for programs that are to run."""
    return jitted


class Programs:
    """The compiled functions of one pool; the slots' layout is pinned so that nothing compiles twice."""

    def __init__(
        self, model: Model, layout: Layout, pool: Pool, view: PyTree, seed: KeyArray | jax.ShapeDtypeStruct,
        wrap: Wrap = as_is,
    ):  # fmt: skip
        """Compiles everything, by running each program once with nothing to do.

        Args:
          model: see `igrpo_jax.types.Model`.
          layout: see `igrpo_jax.types.Layout`.
          pool: sizes.
          view: any sampling view; only its shapes and places matter.
          seed: key on the devices.
          wrap: gets every program by name and returns what is called in its place: the program itself, or, where
            layout and view are of devices that are not there, a function that only compiles it.
        """
        self._model, self._layout, self._pool = model, layout, pool
        self.prefill = wrap("prefill", jax.jit(model.prefill))
        self._empty = wrap("empty", jax.jit(self._empty_caches))
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
        """Empty slots of the smallest sizes."""
        pool, rows = self._pool, self._layout.rows
        prefix, cache = self._empty(view)
        prompts = jax.ShapeDtypeStruct((pool.slots, 1), np.int32), jax.ShapeDtypeStruct((pool.slots,), np.int32)
        hidden = jax.eval_shape(self._model.prefill, view, *prompts)[0]
        words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
        shape = (pool.slots, pool.lanes)
        text = (*shape, pool.completions[-1])
        return Slots(
            prefix=prefix,
            cache=cache,
            first=rows(np.zeros(hidden.shape, hidden.dtype)),
            keys=rows(np.zeros((*shape, *words), np.uint32)),
            active=rows(np.zeros(shape, bool)),
            last=rows(np.zeros(shape, np.int32)),
            lengths=rows(np.zeros(shape, np.int32)),
            tokens=rows(np.zeros(text, np.int32)),
            logprobs=rows(np.zeros(text, np.float32)),
            steps=self._layout.everywhere(np.int32(0)),
        )

    def admit(self, state: Slots, **work: Any) -> Slots:
        """See `decoding.admit`; the old slots are consumed. Caches do not pass through: one program for all sizes."""
        return self._admit(state._replace(cache=None), **work)._replace(cache=state.cache)

    def halt(self, state: Slots, lanes: Any) -> Slots:
        """Ends the completions of the given lanes, bool[S, W]."""
        return state._replace(active=self._halt(state.active, lanes))

    def resize(self, state: Slots, part: str, now: int, then: int) -> Slots:
        """The slots with room for prompts (`prefix`) or completions (`cache`) of another size than now.

        It cannot be made in place: as long as the old slots are held, so are the old prefix or cache.
        """
        if now == then:
            return state
        return state._replace(**{part: self._fit[part](getattr(state, part), capacity=then)})

    def move(self, state: Slots, part: str, index: Any, slots: int) -> Slots:
        """One part of `slots` slots, `prefix`, `cache` or what is `small`, moved to others; see `decoding.move`."""
        if part != "small":
            return state._replace(**{part: self._move[part](getattr(state, part), index, slots=slots)})
        moved = self._move[part](state._replace(prefix=None, cache=None), index, slots=slots)
        return moved._replace(prefix=state.prefix, cache=state.cache)

    def _empty_caches(self, view: PyTree) -> tuple[PyTree, PyTree]:
        prefix = self._model.new_prefix(view, self._pool.slots, self._pool.prompts[0])
        return prefix, self._model.new_cache(view, prefix, self._pool.lanes, self._pool.completions[0])

    def _run_all(self, view: PyTree, state: Slots, seed: Any) -> None:
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
        del state  # a run holds two sizes of one of them at once, so this must hold no more
        for prompt in itertools.chain(*itertools.permutations(pool.prompts, 2)):
            prefix = self._fit["prefix"](prefix, capacity=prompt)
        for own in itertools.chain(*itertools.permutations(pool.completions, 2)):
            cache = self._fit["cache"](cache, capacity=own)
