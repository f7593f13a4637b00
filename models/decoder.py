"""One decoder family (Llama, Mistral, Qwen2, Qwen3) and the functions through which the algorithm uses it.

    hidden, prefix = prefill(policy, tokens[P, L], lengths[P])
    hidden, cache = extend(policy, tokens[P, G, T], prefix, cache, used[P, G])
    hidden = forward(policy, tokens[P, C], prompt_lengths[P], packed)
    logits = unembed(policy, hidden)

Sampling is `prefill`, then `extend` with one token and a cache. Training and scoring are `extend(completions,
prefill(prompts))` too, in one pass: `forward`. All three run the same layers by `_decode` and differ in what attention
sees, so the sampler's and the trainer's log-probabilities agree by construction.

A policy comes in two forms. In training its layers are stacked, one array a weight, and run in a loop that the backward
pass recomputes. For sampling `sampling_view` makes a list of layers, which run one after the other and update their
caches in place; there hidden states have their features first (`models.layers.orientation`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from models.attention import Own, Prompt, attend
from models.axes import constrain, here
from models.caches import Cache, KeyValues, Prefix, capacity_of, new_cache, new_prefix, ring_of
from models.caches import resize as resize
from models.config import DecoderConfig, Remat
from models.gradients import head_logits, lookup
from models.layers.block import Block, block
from models.layers.norms import rms_norm
from models.layers.orientation import FIRST, LAST, Weight, halve, turn
from models.layers.parameters import weight
from models.layers.rotary import rope_frequencies
from models.packing import Packed, pack, positions, unpack

AnyArray = jax.Array | np.ndarray
PyTree = Any

CHUNK = 1024
"""Most tokens of a prompt that a sampling view prefills at once."""


class Decoder(nnx.Module):
    """A policy: a pytree of named weights with its architecture as static data."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, *, remat: Remat = "full"):
        self.config = config
        self.remat: Remat = remat
        self.embed = weight(rngs, vocab=config.vocab_size, embed=config.width)
        self.layers = Block(config, rngs)
        self.norm = weight(rngs, std=None, embed=config.width)
        if not config.tied:
            self.head = weight(rngs, embed=config.width, vocab=config.vocab_size)


def sampling_view(policy: Decoder, dtype: Any) -> Decoder:
    """The policy for decoding: cast to `dtype`, a list of layers in place of the stacked ones, features first.

    Decoding over stacked weights would copy every layer's slice every step (measured 1.5 times slower on CPU). On CPU
    the weights that lead back to the width are two halves each: with no other matmul beside it, one takes longer than
    two do (benchmarks/RESULTS.md).
    """
    view = jax.tree.map(lambda x: x.astype(dtype), policy)
    place = here()
    halved = place is not None and place.device.platform == "cpu"

    def one(stacked: nnx.Param, index: int) -> Weight:
        param = turn(nnx.Param(stacked[...][index], axes=stacked.axes[1:]))
        narrows = param.axes[0] == "embed" and len(param.axes) > 1
        return halve(param) if halved and narrows else param

    def layer(index: int) -> Block:
        return jax.tree.map(partial(one, index=index), view.layers, is_leaf=lambda x: isinstance(x, nnx.Param))

    view.layers = nnx.List([layer(index) for index in range(policy.config.layers)])
    if not policy.config.tied:
        view.head = turn(view.head)
    return view


def is_view(policy: Decoder) -> bool:
    """Whether the policy is one that `sampling_view` has made."""
    return isinstance(policy.layers, nnx.List)


def prefill(
    policy: Decoder, tokens: Int[AnyArray, "P L"], lengths: Int[AnyArray, " P"]
) -> tuple[Float[Array, "P D"], Prefix]:
    """Hidden state of each prompt's last real token, and the prefix that completions attend to.

    Prompts are padded on the right; whatever stands past `lengths` has no effect. A sampling view takes long prompts in
    chunks, so that no activation is larger than a chunk's, and leaves out chunks behind the longest prompt's end.
    """
    if tokens.shape[1] > CHUNK and is_view(policy):
        return _prefill_chunks(policy, tokens, lengths)
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None, None], (tokens.shape[0], 1, tokens.shape[1]))
    hidden, made = _extend(policy, tokens[:, None], places, None, None, None)
    last = jnp.take_along_axis(hidden[:, 0], (lengths - 1)[:, None, None], axis=1)[:, 0]
    return last, Prefix(made, lengths)


def _prefill_chunks(policy: Decoder, tokens, lengths) -> tuple[Float[Array, "P D"], Prefix]:
    """`prefill` a chunk at a time: the prompts are completions of empty prompts, whose cache each chunk continues."""
    p, size = tokens.shape
    count = -(-size // CHUNK)
    width = -(-size // count)
    chunks = jnp.pad(tokens, ((0, 0), (0, count * width - size))).reshape(p, 1, count, width)
    empty = Prefix(new_prefix(policy, p, 0).layers, jnp.zeros(p, jnp.int32))
    cache = new_cache(policy, empty, 1, count * width)
    last = constrain(jnp.zeros((p, policy.config.width), policy.embed[...].dtype), "batch", None)
    beyond = count - -(-jnp.max(jnp.asarray(lengths)) // width)  # chunks behind the longest prompt's end

    def chunk(carry: tuple[Array, Array, Cache]):
        turn, last, cache = carry
        number = turn - beyond
        used = jnp.full((p, 1), number * width)
        places = used[..., None] + jnp.arange(width)[None, None]
        part = jax.lax.dynamic_index_in_dim(chunks, number, axis=2, keepdims=False)
        hidden, cache = _extend(policy, part, places, None, cache, used)
        end = lengths - 1 - number * width  # of each prompt, its last token's place in this chunk
        found = jnp.take_along_axis(hidden[:, 0], jnp.clip(end, 0, width - 1)[:, None, None], axis=1)[:, 0]
        return turn + 1, jnp.where(((end >= 0) & (end < width))[:, None], found, last), cache

    # The loop counts from `beyond` up to a constant, from which `--job plan` knows how many turns there can be.
    _, last, cache = jax.lax.while_loop(lambda carry: carry[0] < count, chunk, (beyond, last, cache))
    shared = [KeyValues(layer.keys[..., :size], layer.values[..., :size, :]) for layer in cache.layers]
    return last, Prefix(shared, lengths)


def extend(
    policy: Decoder,
    tokens: Int[AnyArray, "P G T"],
    prefix: Prefix,
    cache: Cache | None = None,
    used: Int[Array, "P G"] | None = None,
) -> tuple[Float[Array, "P G T D"], PyTree]:
    """Hidden states of tokens that continue the prefix, and the cache with those tokens in it.

    Without a cache the tokens are whole completions, each causal in itself. With one they continue the last `used`
    cached tokens of their row, so a row starts anew with `used = 0`. Every row writes to the cache at every call: it
    may start anew, but not pause. The caller sees to it that `used + T` fits, and that several tokens at once do not
    pass the end of the ring.
    """
    own = jnp.arange(tokens.shape[2])[None, None, :]
    if used is not None:
        own = used[..., None] + own
    places = jnp.broadcast_to(prefix.lengths[:, None, None] + own, tokens.shape)
    return _extend(policy, tokens, places, prefix, cache, used)


def forward(
    policy: Decoder, tokens: Int[Array, "P C"], prompt_lengths: Int[AnyArray, " P"], packed: Packed
) -> Float[Array, "P C D"]:
    """Hidden states of prompts and all their completions, packed without padding, for training and scoring.

    They are the same as those of `extend(completions, prefill(prompts))`. But each layer's weights are used once for
    prompts and completions, the prefix of only one layer exists at a time, and only attention computes padding.
    """

    def attention(_, query, key, value):
        unpacked = (unpack(heads[:, 0], packed) for heads in (query, key, value))
        (query, asked), (key, prompt_key), (value, prompt_value) = unpacked
        prompt = _own(prompt_key[:, None], prompt_value[:, None])
        answered = attend(asked[:, None], None, prompt)
        mixed = attend(query, Prompt(prompt.keys, prompt.values, prompt_lengths), _own(key, value))
        return pack(mixed, answered[:, 0], packed)[:, None], None

    places = positions(packed, prompt_lengths)[:, None]
    return _decode(policy, tokens[:, None], places, attention, None, policy.remat)[0][:, 0]


class Head(NamedTuple):
    """The unembedding of each of some groups of rows, [ways, V, D].

    Attributes:
      weights: in the compute dtype; carry no gradient.
      wide: the same in float32. Nothing is computed with it: it is there to receive the gradient, in float32.
    """

    weights: Float[Array, "*ways V D"]
    wide: Float[Array, "*ways V D"]


def unembed(policy: Decoder | Head, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
    """float32 logits of normalized hidden states."""
    f32 = {"preferred_element_type": jnp.float32}
    if isinstance(policy, Head):
        return head_logits(hidden, *policy)
    if is_view(policy):
        head = policy.embed if policy.config.tied else policy.head
        return jnp.moveaxis(jnp.tensordot(head[...], jnp.moveaxis(hidden, -1, 0), 1, **f32), 0, -1)
    if policy.config.tied:
        return jnp.einsum("...D,VD->...V", hidden, policy.embed[...], **f32)
    return jnp.einsum("...D,DV->...V", hidden, policy.head[...], **f32)


def spread(policy: Decoder, ways: int) -> Head:
    """A copy of the unembedding for each of `ways` groups of rows, on the group's own devices, for `jax.vmap(unembed)`.

    A loop that uses them adds up each group's gradient by itself, in float32: one sum is sent after the loop, not one
    a turn.
    """
    head = policy.embed[...] if policy.config.tied else policy.head[...].T
    copies = constrain(jnp.broadcast_to(head, (ways, *head.shape)), "batch", "vocab", None)
    return Head(jax.lax.stop_gradient(copies), copies.astype(jnp.float32))


def _extend(policy: Decoder, tokens, places, prefix: Prefix | None, cache: Cache | None, used):
    """Hidden states of tokens that follow a prefix, a cache, both or nothing, at the given positions.

    The second result is the cache with the tokens in it; without a cache it is each layer's keys and values of them.
    """
    ring = None if cache is None else ring_of(cache, used, tokens.shape[2])

    def attention(held, query, key, value):
        shared, cached = held
        own = _own(key, value)
        if ring is not None:
            # Keys and values already have the axes in which they are read. Otherwise XLA on CPU would bring them into
            # that order at every step, by way of a copy of the cache.
            write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=ring.place)
            keys, values = write(cached.keys, own.keys, axis=3), write(cached.values, own.values, axis=2)
            own = Own(keys, values, ring.visible)
        prompt = None if prefix is None else Prompt(shared.keys, shared.values, prefix.lengths)
        return attend(query, prompt, own), KeyValues(own.keys, own.values)

    held = tuple(None if part is None else part.layers for part in (prefix, cache))
    hidden, made = _decode(policy, tokens, places, attention, held, "none" if cache is not None else policy.remat)
    if cache is not None:
        made = Cache(made, (cache.next + tokens.shape[2]) % capacity_of(cache))
    return hidden, made


def _own(key: Float[Array, "P G T K H"], value: Float[Array, "P G T K H"]) -> Own:
    """Keys and values of whole rows, with the axes in the order in which attention reads them."""
    rows = lambda heads: heads.reshape(-1, *heads.shape[2:])
    return Own(jnp.moveaxis(rows(key), 1, -1), jnp.moveaxis(rows(value), 1, -2), None)


def _decode(policy: Decoder, tokens, places, attention: Callable, held: Any, remat: Remat):
    """Normalized hidden states [P, G, T, D] of tokens after all layers, and what attention keeps of each layer.

    Args:
      policy: stacked, or a sampling view.
      tokens: [P, G, T].
      places: their positions, [P, G, T].
      attention: (the layer's part of `held`, query, key, value), heads [P, G, T, N, H], to (mixed heads, kept).
      held: for each layer what its attention needs to know, stacked or a list as the layers are.
      remat: see `models.config.Remat`.
    """
    way = FIRST if is_view(policy) else LAST
    hidden = constrain(lookup(policy.embed[...], tokens), "batch", None, None, None)
    turns = way.turns(places, rope_frequencies(policy.config))

    def layer(hidden, inputs):
        weights, held = inputs
        return block(way, policy.config, weights, hidden, turns, partial(attention, held))

    hidden, kept = _each_layer(layer, way.enter(hidden), policy.layers, held, remat)
    return rms_norm(way.leave(hidden), policy.norm[...], policy.config.norm_eps), kept


def _each_layer(layer: Callable, hidden: Array, layers: Any, held: Any, remat: Remat) -> tuple[Array, Any]:
    """Runs one layer after the other: stacked ones as a loop, those of a list unrolled."""
    if not isinstance(layers, nnx.List):
        return jax.lax.scan(_rematerialized(layer, remat), hidden, (layers, held))
    kept = []
    for i, weights in enumerate(layers):
        hidden, one = layer(hidden, (weights, tuple(None if part is None else part[i] for part in held)))
        kept.append(one)
    return hidden, kept


def _rematerialized(layer: Callable, remat: Remat) -> Callable:
    """The layer with a backward pass that recomputes what `remat` says; attention scores are kept by "none" only."""
    if remat == "none":
        return layer
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(layer, prevent_cse=False, policy=dots if remat == "dots" else None)
