"""One decoder family (Llama, Mistral, Qwen2, Qwen3) and the functions through which the algorithm uses it.

    hidden, prefix = prefill(policy, tokens[P, L], lengths[P])
    hidden, cache = extend(policy, tokens[P, G, T], prefix, cache, used[P, G])
    hidden = forward(policy, tokens[P, C], prompt_lengths[P], packed)
    logits = unembed(policy, hidden)

Sampling is `prefill`, then `extend` with one token and a cache. Training and scoring are `extend(completions,
prefill(prompts))` too, in one pass: `forward`. All run `_decode`, so their log-probabilities agree by construction.

Layers are stacked for training (one leaf a weight, scanned, rematerialized) and a list for sampling (unrolled, cache
updated in place); `sampling_view` goes from the first to the second.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from models.attention import Own, Prompt, attend, rotate, turns
from models.axes import constrain, here
from models.caches import Cache, KeyValues, Prefix, capacity_of, new_cache, new_prefix, ring_of
from models.caches import resize as resize
from models.config import DecoderConfig, Remat
from models.gradients import head_logits, lookup, matmul
from models.packing import Packed, pack, positions, unpack


def weight(rngs: nnx.Rngs, *, std: float | None = 0.02, **axes: int) -> nnx.Param:
    """A float32 parameter whose axes are named once: normal with `std`, ones for `std=None`, zeros for 0."""
    shape = tuple(axes.values())
    value = jnp.ones(shape) if std is None else std * jax.random.normal(rngs.params(), shape)
    return nnx.Param(value, axes=tuple(axes))


AnyArray = jax.Array | np.ndarray
PyTree = Any

CHUNK = 1024
"""Most tokens of a prompt that a sampling view prefills at once."""


class Block(nnx.Module):
    """The weights of all layers, stacked on a leading `layers` axis (absent in the sampling view)."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        c, n = config, config.layers
        self.attention_norm = weight(rngs, std=None, layers=n, embed=c.width)
        self.query = weight(rngs, layers=n, embed=c.width, heads=c.heads, head_dim=c.head_dim)
        self.key = weight(rngs, layers=n, embed=c.width, kv_heads=c.kv_heads, head_dim=c.head_dim)
        self.value = weight(rngs, layers=n, embed=c.width, kv_heads=c.kv_heads, head_dim=c.head_dim)
        self.out = weight(rngs, layers=n, heads=c.heads, head_dim=c.head_dim, embed=c.width)
        if c.qkv_bias:
            self.query_bias = weight(rngs, std=0.0, layers=n, heads=c.heads, head_dim=c.head_dim)
            self.key_bias = weight(rngs, std=0.0, layers=n, kv_heads=c.kv_heads, head_dim=c.head_dim)
            self.value_bias = weight(rngs, std=0.0, layers=n, kv_heads=c.kv_heads, head_dim=c.head_dim)
        if c.qk_norm:
            self.query_norm = weight(rngs, std=None, layers=n, head_dim=c.head_dim)
            self.key_norm = weight(rngs, std=None, layers=n, head_dim=c.head_dim)
        self.mlp_norm = weight(rngs, std=None, layers=n, embed=c.width)
        self.gate = weight(rngs, layers=n, embed=c.width, mlp=c.mlp)
        self.up = weight(rngs, layers=n, embed=c.width, mlp=c.mlp)
        self.down = weight(rngs, layers=n, mlp=c.mlp, embed=c.width)


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


def prefill(
    policy: Decoder, tokens: Int[AnyArray, "P L"], lengths: Int[AnyArray, " P"]
) -> tuple[Float[Array, "P D"], Prefix]:
    """Hidden state of each prompt's last real token, and the prefix that completions attend to.

    Prompts are padded on the right; whatever stands past `lengths` has no effect. Under a sampling view
    long prompts are taken in chunks, so that no activation is larger than a chunk's, up to the last real token.
    """
    if tokens.shape[1] > CHUNK and not isinstance(policy.layers, Block):
        return _prefill_chunks(policy, tokens, lengths)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None, None], (tokens.shape[0], 1, tokens.shape[1]))
    hidden, made = _rows(policy, tokens[:, None], positions, None, None, None)
    last = jnp.take_along_axis(hidden[:, 0], (lengths - 1)[:, None, None], axis=1)[:, 0]
    return last, Prefix(made, lengths)


def _prefill_chunks(policy: Decoder, tokens, lengths) -> tuple[Float[Array, "P D"], Prefix]:
    """`prefill` as a completion of nothing: every chunk continues the cache that the chunks before it have filled."""
    p, size = tokens.shape
    count = -(-size // CHUNK)
    width = -(-size // count)
    chunks = jnp.pad(tokens, ((0, 0), (0, count * width - size))).reshape(p, 1, count, width)
    empty = Prefix(new_prefix(policy, p, 0).layers, jnp.zeros(p, jnp.int32))
    cache = new_cache(policy, empty, 1, count * width)
    last = constrain(jnp.zeros((p, policy.config.width), policy.embed[...].dtype), "batch", None)
    beyond = count - -(-jnp.max(jnp.asarray(lengths)) // width)  # chunks behind every prompt's end

    def chunk(carry: tuple[Array, Array, Cache]):
        turn, last, cache = carry
        number = turn - beyond
        used = jnp.full((p, 1), number * width)
        positions = used[..., None] + jnp.arange(width)[None, None]
        part = jax.lax.dynamic_index_in_dim(chunks, number, axis=2, keepdims=False)
        hidden, cache = _rows(policy, part, positions, None, cache, used)
        place = lengths - 1 - number * width
        found = jnp.take_along_axis(hidden[:, 0], jnp.clip(place, 0, width - 1)[:, None, None], axis=1)[:, 0]
        return turn + 1, jnp.where(((place >= 0) & (place < width))[:, None], found, last), cache

    # Turns are counted up to a constant, by which a plan knows how many there can be.
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

    Without a cache the tokens are whole completions, each causal in itself. With one they
    continue the last `used` cached tokens of their row, so a row starts anew with `used = 0`. The caller sees to it
    that `used + T` fits, and that several tokens at once do not pass the end of the ring. All rows write at every call:
    one may start anew, but not pause.
    """
    own = jnp.arange(tokens.shape[2])[None, None, :]
    if used is not None:
        own = used[..., None] + own
    places = jnp.broadcast_to(prefix.lengths[:, None, None] + own, tokens.shape)
    return _rows(policy, tokens, places, prefix, cache, used)


def forward(
    policy: Decoder, tokens: Int[Array, "P C"], prompt_lengths: Int[AnyArray, " P"], packed: Packed
) -> Float[Array, "P C D"]:
    """Hidden states of prompts and all their completions, packed, for training and scoring.

    Of each token the same as by `extend(completions, prefill(prompts))`. But each layer's weights are used once for
    both, the prefix of only one layer exists at a time, and nothing but attention sees padding.
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
      wide: the same in float32: never computed, for it only receives the gradient.
    """

    weights: Float[Array, "*ways V D"]
    wide: Float[Array, "*ways V D"]


def unembed(policy: Decoder | Head, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
    """float32 logits of normalized hidden states."""
    f32 = {"preferred_element_type": jnp.float32}
    if isinstance(policy, Head):
        return head_logits(hidden, *policy)
    if isinstance(policy.layers, Block):
        if policy.config.tied:
            return jnp.einsum("...D,VD->...V", hidden, policy.embed[...], **f32)
        return jnp.einsum("...D,DV->...V", hidden, policy.head[...], **f32)
    head = policy.embed if policy.config.tied else policy.head
    return jnp.moveaxis(jnp.tensordot(head[...], jnp.moveaxis(hidden, -1, 0), 1, **f32), 0, -1)


def spread(policy: Decoder, ways: int) -> Head:
    """A copy of the unembedding for each of `ways` groups of rows, on the group's own devices, for `jax.vmap(unembed)`.

    A loop that uses them adds up each group's gradient by itself, in float32: one sum is sent after the loop, not one
    a turn.
    """
    head = policy.embed[...] if policy.config.tied else policy.head[...].T
    copies = constrain(jnp.broadcast_to(head, (ways, *head.shape)), "batch", "vocab", None)
    return Head(jax.lax.stop_gradient(copies), copies.astype(jnp.float32))


def sampling_view(policy: Decoder, dtype: Any) -> Decoder:
    """The policy for decoding: cast to `dtype`, a list of layers in place of the stacked ones, outputs in front.

    Decoding over stacked weights would copy every layer's slice every step (measured 1.5 times slower on CPU), and
    few rows are multiplied faster from the left: hidden states have their features in front. On CPU `out` and `down`
    are two halves each: with no other matmul beside it, one takes longer than two do (benchmarks/RESULTS.md).
    """
    view = jax.tree.map(lambda x: x.astype(dtype), policy)

    def turned(param: nnx.Param) -> nnx.Param:
        """Its width before its outputs moved behind them, or the other way round."""
        if "embed" not in param.axes:
            return param
        place = param.axes.index("embed")
        others = param.axes[:place] + param.axes[place + 1 :]
        value = jnp.moveaxis(param[...], place, -1 if place == 0 else 0)
        return nnx.Param(value, axes=("embed", *others) if place else (*others, "embed"))

    def halves(param: nnx.Param) -> Any:
        return nnx.List([nnx.Param(half, axes=param.axes) for half in jnp.array_split(param[...], 2)])

    place = here()
    halved = place is not None and place.device.platform == "cpu"

    def layer(index: int) -> Block:
        one = lambda p: turned(nnx.Param(p[...][index], axes=p.axes[1:]))
        block = jax.tree.map(one, view.layers, is_leaf=lambda x: isinstance(x, nnx.Param))
        if halved:
            block.out, block.down = halves(block.out), halves(block.down)
        return block

    view.layers = nnx.List([layer(i) for i in range(policy.config.layers)])
    if not policy.config.tied:
        view.head = turned(view.head)
    return view


def _rows(policy: Decoder, tokens, positions, prefix: Prefix | None, cache: Cache | None, used):
    """Hidden states of tokens behind prefix and cache, and the cache with them, or each layer's keys and values."""
    ring = None if cache is None else ring_of(cache, used, tokens.shape[2])

    def attention(held, query, key, value):
        shared, cached = held
        own = _own(key, value)
        if ring is not None:
            # Of the shape in which it is read: else XLA on CPU writes once more for that, into a copy of the cache.
            write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=ring.place)
            keys, values = write(cached.keys, own.keys, axis=3), write(cached.values, own.values, axis=2)
            own = Own(keys, values, ring.visible)
        prompt = None if prefix is None else Prompt(shared.keys, shared.values, prefix.lengths)
        return attend(query, prompt, own), KeyValues(own.keys, own.values)

    held = tuple(None if part is None else part.layers for part in (prefix, cache))
    hidden, made = _decode(policy, tokens, positions, attention, held, "none" if cache is not None else policy.remat)
    if cache is not None:
        made = Cache(made, (cache.next + tokens.shape[2]) % capacity_of(cache))
    return hidden, made


def _own(key: Float[Array, "P G T K H"], value: Float[Array, "P G T K H"]) -> Own:
    """Keys and values of whole rows, as attention reads them."""
    rows = lambda heads: heads.reshape(-1, *heads.shape[2:])
    return Own(jnp.moveaxis(rows(key), 1, -1), jnp.moveaxis(rows(value), 1, -2), None)


def _decode(policy: Decoder, tokens, positions, attention: Callable, held: Any, remat: Remat):
    """Runs all layers; returns normalized hidden states, and what attention has made in each layer.

    `attention(held, query, key, value)` sees each layer's part of `held` and heads [P, G, T, N, H].
    """
    hidden = constrain(lookup(policy.embed[...], tokens), "batch", None, None, None)
    first = not isinstance(policy.layers, Block)
    by = turns(positions, policy.config, first=first)

    def layer(hidden, inputs):
        block, held = inputs
        return _block(policy.config, block, hidden, by, partial(attention, held), first=first)

    if isinstance(policy.layers, Block):
        hidden, made = jax.lax.scan(_rematerialized(layer, remat), hidden, (policy.layers, held))
    else:
        made, hidden = [], jnp.moveaxis(hidden, -1, 0)
        for i, block in enumerate(policy.layers):
            hidden, one = layer(hidden, (block, tuple(None if part is None else part[i] for part in held)))
            made.append(one)
        hidden = jnp.moveaxis(hidden, 0, -1)
    return _rms_norm(hidden, policy.norm[...], policy.config.norm_eps), made


def _rematerialized(layer: Callable, remat: Remat) -> Callable:
    """The layer with a backward pass that recomputes what `remat` says; attention scores are kept by "none" only."""
    if remat == "none":
        return layer
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(layer, prevent_cse=False, policy=dots if remat == "dots" else None)


def _block(config: DecoderConfig, block: Block, hidden, by, attention: Callable, *, first: bool):
    """One layer. Returns the new hidden states and what attention has made.

    Hidden states are [P, G, T, D] and heads [P, G, T, N, H]; with `first` features come first, [D, P, G, T] and
    [N, H, P, G, T], and the weights have their outputs in front, see `sampling_view`.
    """
    # Without this XLA all-reduces whole-batch activations on an FSDP mesh instead of gathering weights.
    hidden = constrain(hidden, *((None, "batch", None, None) if first else ("batch", None, None, None)))
    axis, of_heads = (0, 1) if first else (-1, -1)
    x = _rms_norm(hidden, block.attention_norm[...], config.norm_eps, axis)
    query, key, value = (_split_heads(x, w[...], first) for w in (block.query, block.key, block.value))
    if config.qkv_bias:
        rows = (2, 3, 4) if first else (0, 1, 2)
        biases = (block.query_bias, block.key_bias, block.value_bias)
        query, key, value = (
            heads + jnp.expand_dims(bias[...], rows) for heads, bias in zip((query, key, value), biases, strict=True)
        )
    if config.qk_norm:
        query = _rms_norm(query, block.query_norm[...], config.norm_eps, of_heads)
        key = _rms_norm(key, block.key_norm[...], config.norm_eps, of_heads)
    query, key = rotate(query, by, of_heads), rotate(key, by, of_heads)
    if first:
        query, key, value = (jnp.moveaxis(heads, (0, 1), (-2, -1)) for heads in (query, key, value))
    mixed, made = attention(query, key, value)
    hidden = hidden + _merge_heads(mixed, block.out, first)

    x = _rms_norm(hidden, block.mlp_norm[...], config.norm_eps, axis)
    gated = jax.nn.silu(_project(x, block.gate[...], first)) * _project(x, block.up[...], first)
    return hidden + _narrow(gated, block.down, first), made


def _project(x: Array, w: Array, first: bool) -> Array:
    """x w over the last axis of x, or with `first` w x over its first one."""
    return jnp.tensordot(w, x, 1) if first else matmul(x, w)


def _split_heads(x: Array, w: Array, first: bool) -> Array:
    """The projection of hidden states to heads, as one plain matmul."""
    if first:
        out = _project(x, w.reshape(-1, w.shape[-1]), first)
        return out.reshape(*w.shape[:-1], *out.shape[1:])
    out = _project(x, w.reshape(w.shape[0], -1), first)
    return out.reshape(*out.shape[:-1], *w.shape[1:])


def _merge_heads(mixed: Float[Array, "P G T N H"], w: Any, first: bool) -> Array:
    """The output projection."""
    mixed = mixed.reshape(*mixed.shape[:3], -1)
    return _narrow(jnp.moveaxis(mixed, -1, 0) if first else mixed, w, first)


def _narrow(x: Array, w: Any, first: bool) -> Array:
    """Back to the width of hidden states, as one plain matmul or one for each of the weight's halves.

    For two contracted axes XLA would transpose the weights at every step.
    """
    if isinstance(w, nnx.List):
        return jnp.concatenate([_narrow(x, half, first) for half in w])
    w = w[...]
    return _project(x, w.reshape(w.shape[0], -1) if first else w.reshape(-1, w.shape[-1]), first)


def _rms_norm(x: Float[Array, "*rows"], scale: Float[Array, " X"], eps: float, axis: int = -1) -> Array:
    """x / rms(x) over `axis` in float32, then scaled in x's dtype, as Llama does."""
    wide = x.astype(jnp.float32)
    normal = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=axis, keepdims=True) + eps)
    return normal.astype(x.dtype) * jnp.expand_dims(scale, [i for i in range(x.ndim) if i != axis % x.ndim])
