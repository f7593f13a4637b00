"""One decoder family (Llama, Mistral, Qwen2, Qwen3) and the functions through which the algorithm uses it.

    hidden, prefix = prefill(policy, tokens[P, L], lengths[P])
    hidden, cache = extend(policy, tokens[P, G, T], prefix, cache)
    logits = unembed(policy, hidden)

Sampling is `prefill`, then `extend` with one token and a cache; training and scoring are `extend(completions,
prefill(prompts))` without one. Both run `_decode`, so their log-probabilities agree by construction.

Layers are stacked for training (one leaf a weight, scanned, rematerialized) and a list for sampling (unrolled, cache
updated in place); `sampling_view` goes from the first to the second.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from models.attention import Own, Prompt, attend, rope_frequencies, rotate
from models.axes import constrain
from models.config import DecoderConfig


def weight(rngs: nnx.Rngs, *, std: float | None = 0.02, **axes: int) -> nnx.Param:
    """A float32 parameter whose axes are named once: normal with `std`, ones for `std=None`, zeros for 0."""
    shape = tuple(axes.values())
    value = jnp.ones(shape) if std is None else std * jax.random.normal(rngs.params(), shape)
    return nnx.Param(value, axes=tuple(axes))


AnyArray = jax.Array | np.ndarray


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

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs, *, remat: bool = True):
        self.config = config
        self.remat = remat
        self.embed = weight(rngs, vocab=config.vocab_size, embed=config.width)
        self.layers = Block(config, rngs)
        self.norm = weight(rngs, std=None, embed=config.width)
        if not config.tied:
            self.head = weight(rngs, embed=config.width, vocab=config.vocab_size)


class KeyValues(NamedTuple):
    """Keys and values of one layer, or of all: stacked arrays for a stacked policy, one entry a layer for a view."""

    keys: Float[Array, "..."]
    values: Float[Array, "..."]


class Prefix(NamedTuple):
    """What completions attend to, one row a problem; `layers` holds keys and values [P, K, L, H] of each layer."""

    layers: Any
    lengths: Int[AnyArray, " P"]


class Cache(NamedTuple):
    """The completions' own keys and values [P, G, K, capacity, H] of each layer; the first `used` slots are filled."""

    layers: Any
    used: Int[Array, ""]


def prefill(
    policy: Decoder, tokens: Int[AnyArray, "P L"], lengths: Int[AnyArray, " P"]
) -> tuple[Float[Array, "P D"], Prefix]:
    """Hidden state of each prompt's last real token, and the prefix that completions attend to.

    Prompts are padded on the right; whatever stands past `lengths` has no effect.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None, None], (tokens.shape[0], 1, tokens.shape[1]))
    hidden, made = _decode(policy, tokens[:, None], positions, None, None)
    last = jnp.take_along_axis(hidden[:, 0], (lengths - 1)[:, None, None], axis=1)[:, 0]
    shared = jax.tree.map(lambda x: x.squeeze(-4), made)
    return last, Prefix(shared, lengths)


def extend(
    policy: Decoder, tokens: Int[AnyArray, "P G T"], prefix: Prefix, cache: Cache | None
) -> tuple[Float[Array, "P G T D"], Cache | None]:
    """Hidden states of tokens that continue the prefix, and the cache with those tokens in it.

    Without a cache the tokens are whole completions, each causal in itself (training and scoring). With one they
    continue the cached tokens; the caller sees to it that `cache.used + T` fits.
    """
    offset = 0 if cache is None else cache.used
    own = offset + jnp.arange(tokens.shape[2])
    positions = prefix.lengths[:, None, None] + own[None, None, :]
    positions = jnp.broadcast_to(positions, tokens.shape)
    hidden, made = _decode(policy, tokens, positions, prefix, cache)
    return hidden, None if cache is None else Cache(made, cache.used + tokens.shape[2])


def unembed(policy: Decoder, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
    """float32 logits of normalized hidden states."""
    if policy.config.tied:
        return jnp.einsum("...D,VD->...V", hidden, policy.embed[...], preferred_element_type=jnp.float32)
    return jnp.einsum("...D,DV->...V", hidden, policy.head[...], preferred_element_type=jnp.float32)


def new_cache(policy: Decoder, prefix: Prefix, num_samples: int, capacity: int) -> Cache:
    """An empty cache of `capacity` own tokens for `num_samples` completions of every prompt of the prefix."""

    def empty(x):
        *stack, p, k, _, h = x.shape
        return jnp.zeros((*stack, p, num_samples, k, capacity, h), x.dtype)

    return Cache(jax.tree.map(empty, prefix.layers), jnp.zeros((), jnp.int32))


def grow_cache(cache: Cache, capacity: int) -> Cache:
    """The same cache with room for `capacity` own tokens."""

    def grow(x):
        return jnp.pad(x, [(0, capacity - size if axis == x.ndim - 2 else 0) for axis, size in enumerate(x.shape)])

    return Cache(jax.tree.map(grow, cache.layers), cache.used)


def sampling_view(policy: Decoder, dtype: Any) -> Decoder:
    """The policy for decoding: cast to `dtype`, and a list of layers in place of the stacked ones.

    Decoding over stacked weights would copy every layer's slice every step (measured 1.5 times slower on CPU).
    """
    view = jax.tree.map(lambda x: x.astype(dtype), policy)

    def layer(index: int) -> Block:
        return jax.tree.map(
            lambda p: nnx.Param(p[...][index], axes=p.axes[1:]),
            view.layers,
            is_leaf=lambda x: isinstance(x, nnx.Param),
        )

    view.layers = nnx.List([layer(i) for i in range(policy.config.layers)])
    return view


def _decode(policy: Decoder, tokens, positions, prefix: Prefix | None, cache: Cache | None):
    """Runs all layers; returns normalized hidden states and each layer's keys and values (the whole cache if any)."""
    table = constrain(policy.embed[...], "vocab", None)
    hidden = constrain(table[tokens], "batch", None, None, None)
    frequencies = rope_frequencies(policy.config)
    offset = None if cache is None else cache.used

    def layer(hidden, inputs):
        block, shared, own = inputs
        prompt = None
        if prefix is not None:
            visible = jnp.arange(shared.keys.shape[2])[None, :] < prefix.lengths[:, None]
            prompt = Prompt(shared.keys, shared.values, visible)
        return _block(policy.config, block, hidden, positions, frequencies, prompt, own, offset)

    shared = None if prefix is None else prefix.layers
    own = None if cache is None else cache.layers
    if isinstance(policy.layers, Block):
        step = jax.checkpoint(layer, prevent_cse=False) if policy.remat and cache is None else layer
        hidden, made = jax.lax.scan(step, hidden, (policy.layers, shared, own))
    else:
        made = []
        for i, block in enumerate(policy.layers):
            parts = (block, None if shared is None else shared[i], None if own is None else own[i])
            hidden, keys_values = layer(hidden, parts)
            made.append(keys_values)
    return _rms_norm(hidden, policy.norm[...], policy.config.norm_eps), made


def _block(config: DecoderConfig, block: Block, hidden, positions, frequencies, prompt, own, offset):
    """One layer. Returns the new hidden states and this layer's keys and values."""
    # Without this XLA all-reduces whole-batch activations on an FSDP mesh instead of gathering weights.
    hidden = constrain(hidden, "batch", None, None, None)
    x = _rms_norm(hidden, block.attention_norm[...], config.norm_eps)
    query = jnp.einsum("PGTD,DNH->PGTNH", x, block.query[...])
    key = jnp.einsum("PGTD,DKH->PGTKH", x, block.key[...])
    value = jnp.einsum("PGTD,DKH->PGTKH", x, block.value[...])
    if config.qkv_bias:
        query = query + block.query_bias[...][None, None, None]
        key = key + block.key_bias[...][None, None, None]
        value = value + block.value_bias[...][None, None, None]
    if config.qk_norm:
        query = _rms_norm(query, block.query_norm[...], config.norm_eps)
        key = _rms_norm(key, block.key_norm[...], config.norm_eps)
    query = rotate(query, positions, frequencies)
    key = rotate(key, positions, frequencies).swapaxes(2, 3)
    value = value.swapaxes(2, 3)

    start = 0
    if own is not None:
        start = offset
        key = jax.lax.dynamic_update_slice_in_dim(own.keys, key, offset, axis=3)
        value = jax.lax.dynamic_update_slice_in_dim(own.values, value, offset, axis=3)
    visible = jnp.arange(key.shape[3])[None, :] <= start + jnp.arange(query.shape[2])[:, None]
    mixed = attend(query, prompt, Own(key, value, visible))
    hidden = hidden + jnp.einsum("PGTNH,NHD->PGTD", mixed, block.out[...])

    x = _rms_norm(hidden, block.mlp_norm[...], config.norm_eps)
    gated = jax.nn.silu(jnp.einsum("PGTD,DF->PGTF", x, block.gate[...])) * jnp.einsum("PGTD,DF->PGTF", x, block.up[...])
    return hidden + jnp.einsum("PGTF,FD->PGTD", gated, block.down[...]), KeyValues(key, value)


def _rms_norm(x: Float[Array, "*rows X"], scale: Float[Array, " X"], eps: float) -> Float[Array, "*rows X"]:
    """x / rms(x) in float32, then scaled in x's dtype, as Llama does."""
    wide = x.astype(jnp.float32)
    normal = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return normal.astype(x.dtype) * jnp.expand_dims(scale, tuple(range(x.ndim - 1)))
