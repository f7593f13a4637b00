"""What the devices do in sampling: put prompts into slots, draw tokens, move slots.

A slot holds what the model keeps of one prompt, its prefix, and has W lanes, each of which draws one sample of that
prompt. When all lanes of a slot have ended, the host gives it other samples, and another prompt if need be. Nothing
else moves in memory for that.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from igrpo_jax.protocols import Model
from igrpo_jax.sampling.draw import NO_TOKEN, Truncation, draw, row_keys, uniforms
from igrpo_jax.types import AnyArray, KeyArray, PyTree


class Slots(NamedTuple):
    """Everything on the devices that belongs to the samples being drawn: S slots of W lanes.

    Attributes:
      prefix: what the model keeps of each slot's prompt, as the model lays it out.
      cache: what the model keeps of the tokens that each lane has drawn.
      first: hidden state of each prompt's last token, from which the first token of a completion is drawn.
      keys: data of the random key of each lane's sample.
      active: lanes whose completion has not ended.
      last: the token that each lane drew last, which is not in the cache yet.
      lengths: number of tokens that each lane has drawn.
      tokens: these tokens; behind them lie some of earlier completions, which nobody reads.
      logprobs: log-probability of each token under the distribution that it was drawn from; behind them as in `tokens`.
      steps: decode steps since the start of the call.
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
    """Which slots get which new samples, and how the prompts of these get there.

    `fresh`, `wanted`, `offset`, `ids` and `stages` have an entry for each slot. The others are lists, of S / shards
    entries for each shard, in which the shard's slots and prefilled prompts are counted from 0. A list ends where
    `target` or `place` is S / shards.

    Attributes:
      fresh: whether the slot gets new samples; if not, the slot's other entries are not used.
      source: slots whose prompts are copied.
      target: for each of these, the slot of the same shard that gets the copy; none of them is a source.
      prompt: prefilled prompts.
      place: for each of these, the slot that gets it.
      wanted: how many samples the slot draws; its other lanes stay idle.
      offset: number of the first of these samples in their request.
      ids: identity of the samples' problem.
      stages: number of the samples' stage.
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
    """When completions end for their length, and when decoding returns to the host.

    The numbers are traced, so that other ones compile nothing.

    Attributes:
      length: tokens that a completion has at most.
      room: tokens of each lane that the cache has room for; decoding returns when a lane needs more.
      wake: decoding returns as soon as so many slots are idle, that is, have no active lane.
      steps: decoding returns after so many steps.
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
    """Gives slots new samples and puts their prompts into them, in place.

    Args:
      state: the slots, whose prefix has room for the prompts.
      arrived: what `Model.prefill` gave of F prompts, split over the shards as the slots are; None if there are none.
      new: which slots get what.
      seed: the run's key.
      step: the training step.
      shards: over which the slots are split.
    """
    split = lambda x: x.reshape(shards, -1, *x.shape[1:])
    held = jax.tree.map(split, (state.first, state.prefix))
    held = _copy_prompts(held, None, split(new.source), split(new.target))
    if arrived is not None:
        held = _copy_prompts(held, jax.tree.map(split, arrived), split(new.prompt), split(new.place))
    first, prefix = jax.tree.map(lambda x, like: x.reshape(like.shape), held, (state.first, state.prefix))

    def renew(old, then):
        return jnp.where(jnp.expand_dims(new.fresh, tuple(range(1, old.ndim))), then, old)

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


def _copy_prompts(
    held: PyTree, origin: PyTree | None, source: Int[AnyArray, "shards n"], target: Int[AnyArray, "shards n"]
) -> PyTree:
    """Puts prompts into slots, one after the other on every shard, so that the slots are changed in place.

    Args:
      held: the prompts that the slots hold, [shards, S / shards, ...].
      origin: where the prompts come from, alike but with another number of them; None if from other slots.
      source: which prompts of `origin`.
      target: which slots; n = S / shards where a shard's list has ended.
    """

    def put(slots: Array, prompts: Array, source: AnyArray, target: AnyArray) -> Array:
        prompt = prompts[source]
        return slots.at[(target, *map(slice, prompt.shape))].set(prompt, mode="drop")  # slot n does not exist

    def one(i: Array, held: PyTree) -> PyTree:
        put_all = lambda slots, prompts: jax.vmap(put)(slots, prompts, source[:, i], target[:, i])
        return jax.tree.map(put_all, held, held if origin is None else origin)

    count = jnp.sum(target < target.shape[1], axis=1).max()
    return jax.lax.fori_loop(0, count, one, held)


def move(part: PyTree, index: Int[AnyArray, " s"], *, slots: int, shards: int) -> PyTree:
    """Gathers slots, or one part of them, into another number of slots.

    Args:
      part: `Slots`, or any tree of arrays with the slots first; numbers stay as they are.
      index: for each slot afterwards, the slot of the same shard that it takes over, counted from the shard's first;
        -1 for a slot that shall be idle.
      slots: S, the number of slots before.
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
    """Draws tokens in every active lane until one of the limits is reached.

    The first token of a completion is drawn from its prompt, before the first decode step.
    """
    end = state.steps + limits.steps

    def unfinished(state: Slots):
        idle = jnp.sum(jnp.logical_not(state.active.any(axis=1)), dtype=jnp.int32)
        longest = jnp.max(jnp.where(state.active, state.lengths, 0))
        return (idle < limits.wake) & (state.steps < end) & (longest <= limits.room)

    def drawn(state: Slots, hidden: Float[Array, "S W D"], lanes: Bool[Array, "S W"]) -> Slots:
        uniform = uniforms(jax.random.wrap_key_data(state.keys), state.lengths)
        tokens, logprobs = draw(model.unembed(view, hidden), uniform, truncation)
        return _append(state, lanes, tokens, logprobs, stops, limits.length)

    def first(state: Slots) -> Slots:
        hidden = jnp.broadcast_to(state.first[:, None], (*state.active.shape, state.first.shape[-1]))
        return drawn(state, hidden, state.active & (state.lengths == 0))

    def token(state: Slots) -> Slots:
        used = jnp.maximum(state.lengths - 1, 0)
        hidden, cache = model.extend(view, state.last[..., None], state.prefix, state.cache, used)
        return drawn(state._replace(cache=cache, steps=state.steps + 1), hidden[:, :, 0], state.active)

    small = state._replace(prefix=None, cache=None)  # what passes through a conditional may be copied
    begun = jax.lax.cond(jnp.any(state.active & (state.lengths == 0)), first, lambda same: same, small)
    return jax.lax.while_loop(unfinished, token, begun._replace(prefix=state.prefix, cache=state.cache))


def _append(state: Slots, lanes: Array, tokens: Array, logprobs: Array, stops: Array, length: Any) -> Slots:
    """Adds the token that was drawn to the completions of some active lanes, and ends those that are complete."""
    place = jnp.where(lanes, state.lengths, state.tokens.shape[2])  # for the other lanes behind the end: not written
    write = jax.vmap(jax.vmap(lambda row, place, value: row.at[place].set(value, mode="drop")))
    lengths = state.lengths + lanes
    ended = jnp.any(tokens[..., None] == stops[None, None, :], axis=-1) | (lengths >= length) | (tokens == NO_TOKEN)
    return state._replace(
        active=state.active & jnp.logical_not(lanes & ended),
        last=jnp.where(lanes, tokens, state.last),
        lengths=lengths,
        tokens=write(state.tokens, place, tokens),
        logprobs=write(state.logprobs, place, logprobs),
    )
