"""The device side of sampling: slots of prompts, lanes that decode their completions, and the programs over both.

A slot holds one prompt's prefix and draws one sample of that prompt in each of its W lanes. The host empties slots
whose lanes have all ended and fills them again; nothing moves in memory for that.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from igrpo_jax.sampling.draw import NO_TOKEN, Truncation, draw, row_keys, uniforms
from igrpo_jax.types import AnyArray, KeyArray, Model, PyTree


class Slots(NamedTuple):
    """All that is in flight: S slots of W lanes.

    Attributes:
      prefix: of each slot's prompt, as the model lays it out.
      cache: each lane's own tokens.
      first: hidden state of the last prompt token; a completion's first token is drawn from it.
      keys: key data of each lane's sample.
      active: lanes whose completion has not ended.
      last: the token each lane drew last, not yet in the cache.
      lengths: tokens that each lane has drawn.
      tokens: the completions; what lies past `lengths` means nothing.
      logprobs: of the tokens under the distribution they were drawn from.
      steps: decode steps since the start.
    """

    prefix: PyTree
    cache: PyTree
    first: Float[Array, "S D"]
    keys: UInt32[Array, "S W words"]
    active: Bool[Array, "S W"]
    last: Int[Array, "S W"]
    lengths: Int[Array, "S W"]
    tokens: Int[Array, "S W T"]
    logprobs: Float[Array, "S W T"]
    steps: Int[Array, ""]


class Admission(NamedTuple):
    """New work for some slots.

    Attributes:
      fresh: slots that are filled anew.
      source: slots of a shard whose prompts other slots of it get, counted through the shard's.
      target: those other slots, none of them a source; S / shards where there are no more.
      prompt: the shard's prefilled prompts that slots get, counted through the shard's.
      place: those slots; S / shards where there are no more.
      wanted: samples to draw, the others of the W lanes stay idle.
      offset: number of the first of these samples inside their request.
      ids: problem identities.
      stages: stage numbers.
    """

    fresh: Bool[AnyArray, " S"]
    source: Int[AnyArray, " S"]
    target: Int[AnyArray, " S"]
    prompt: Int[AnyArray, " S"]
    place: Int[AnyArray, " S"]
    wanted: Int[AnyArray, " S"]
    offset: Int[AnyArray, " S"]
    ids: UInt32[AnyArray, " S"]
    stages: Int[AnyArray, " S"]


class Limits(NamedTuple):
    """When decoding returns to the host; traced, so that other numbers compile nothing.

    Attributes:
      length: tokens of a completion, at most.
      room: own tokens that the cache has room for.
      wake: return as soon as this many slots are idle, all their lanes ended.
      steps: return after this many steps.
    """

    length: Int[AnyArray | np.number, ""]
    room: Int[AnyArray | np.number, ""]
    wake: Int[AnyArray | np.number, ""]
    steps: Int[AnyArray | np.number, ""]


def admit(
    state: Slots,
    arrived: tuple[Float[Array, "F D"], PyTree] | None,
    new: Admission,
    seed: KeyArray,
    step: Int[Array, ""],
    *,
    shards: int,
) -> Slots:
    """Fills the fresh slots, in place, with what `prefill` gave, if anything, and with prompts of other slots.

    The slots and the F prompts, for which the slots have room, are split over the shards alike.
    """
    split = lambda x: x.reshape(shards, -1, *x.shape[1:])

    def copy(held: PyTree, origin: PyTree | None, source: AnyArray, target: AnyArray) -> PyTree:
        """Puts prompts of `origin`, or of other slots, into slots, one after the other in every shard."""

        def put(now: Array, then: Array, source: Array, target: Array) -> Array:
            row = then[source]
            return now.at[(target, *map(slice, row.shape))].set(row, mode="drop")  # where there are no more

        def one(i: Array, held: PyTree) -> PyTree:
            put_all = lambda now, then: jax.vmap(put)(now, then, split(source)[:, i], split(target)[:, i])
            return jax.tree.map(put_all, held, held if origin is None else origin)

        count = jnp.sum(split(target) < len(target) // shards, axis=1).max()
        return jax.lax.fori_loop(0, count, one, held)

    held = copy(jax.tree.map(split, (state.first, state.prefix)), None, new.source, new.target)
    if arrived is not None:
        held = copy(held, jax.tree.map(split, arrived), new.prompt, new.place)
    first, prefix = jax.tree.map(lambda x, like: x.reshape(like.shape), held, (state.first, state.prefix))

    def renew(now, then):
        return jnp.where(jnp.expand_dims(new.fresh, tuple(range(1, now.ndim))), then, now)

    lane = jnp.arange(state.active.shape[1])[None, :]
    keys = row_keys(seed, step, new.stages, new.ids, new.offset[:, None] + lane)
    return state._replace(
        prefix=prefix,
        first=first,
        keys=renew(state.keys, jax.random.key_data(keys)),
        active=renew(state.active, lane < new.wanted[:, None]),
        last=renew(state.last, jnp.zeros_like(state.last)),
        lengths=renew(state.lengths, jnp.zeros_like(state.lengths)),
    )


def move(part: PyTree, index: Int[AnyArray, " s"], *, slots: int, shards: int) -> PyTree:
    """`Slots`, or a part of them, with another number of slots: of each shard those that `index` names.

    Args:
      part: of so many `slots`.
      index: counted through the shard's slots; -1 for an idle one.
      slots: S.
      shards: over which the slots are split, before and after.
    """
    here = jnp.maximum(index, 0).reshape(shards, -1)

    def take(x: Array) -> Array:
        if not x.ndim:
            return x
        each = x.reshape(shards, slots // shards, x.shape[0] // slots, *x.shape[1:])
        return jax.vmap(lambda x, index: x[index])(each, here).reshape(-1, *x.shape[1:])

    moved = jax.tree.map(take, part)
    if isinstance(moved, Slots):
        moved = moved._replace(active=moved.active & (index >= 0)[:, None])
    return moved


def decode(
    model: Model, view: PyTree, truncation: Truncation, stops: Int[Array, " stops"], limits: Limits, state: Slots
) -> Slots:
    """Draws tokens in every active lane until one of the limits is reached; first tokens need no step."""
    end = state.steps + limits.steps

    def unfinished(state: Slots):
        idle = jnp.sum(jnp.logical_not(state.active.any(axis=1)), dtype=jnp.int32)
        longest = jnp.max(jnp.where(state.active, state.lengths, 0))
        return (idle < limits.wake) & (state.steps < end) & (longest <= limits.room)

    def drawn(state: Slots, hidden: Float[Array, "S W D"], who: Bool[Array, "S W"]) -> Slots:
        uniform = uniforms(jax.random.wrap_key_data(state.keys), state.lengths)
        tokens, logprobs = draw(model.unembed(view, hidden), uniform, truncation)
        return _append(state, who, tokens, logprobs, stops, limits.length)

    def first(state: Slots) -> Slots:
        hidden = jnp.broadcast_to(state.first[:, None], (*state.active.shape, state.first.shape[-1]))
        return drawn(state, hidden, state.active & (state.lengths == 0))

    def token(state: Slots) -> Slots:
        used = jnp.maximum(state.lengths - 1, 0)
        hidden, cache = model.extend(view, state.last[..., None], state.prefix, state.cache, used)
        return drawn(state._replace(cache=cache, steps=state.steps + 1), hidden[:, :, 0], state.active)

    small = state._replace(prefix=None, cache=None)  # a branch could copy what passes through it
    begun = jax.lax.cond(jnp.any(state.active & (state.lengths == 0)), first, lambda same: same, small)
    return jax.lax.while_loop(unfinished, token, begun._replace(prefix=state.prefix, cache=state.cache))


def _append(state: Slots, who: Array, tokens: Array, logprobs: Array, stops: Array, length: Any) -> Slots:
    """Writes down one token in some of the active lanes."""
    place = jnp.where(who, state.lengths, state.tokens.shape[2])  # out of bounds is dropped
    write = jax.vmap(jax.vmap(lambda row, place, value: row.at[place].set(value, mode="drop")))
    lengths = state.lengths + who
    ended = jnp.any(tokens[..., None] == stops[None, None, :], axis=-1) | (lengths >= length) | (tokens == NO_TOKEN)
    return state._replace(
        active=state.active & jnp.logical_not(who & ended),
        last=jnp.where(who, tokens, state.last),
        lengths=lengths,
        tokens=write(state.tokens, place, tokens),
        logprobs=write(state.logprobs, place, logprobs),
    )
