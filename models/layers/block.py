"""The layer of Llama, Mistral, Qwen2 and Qwen3: rotary grouped-query attention and a gated MLP, each behind a norm."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array

from models.config import DecoderConfig
from models.layers.orientation import Orientation
from models.layers.parameters import weight
from models.layers.rotary import Turns

Attend = Callable[[Array, Array, Array], tuple[Array, Any]]
"""Attention of queries [P, G, T, N, H] over keys and values [P, G, T, K, H] and whatever else the caller has.

It returns the mixed heads [P, G, T, N, H], and what the caller keeps of the layer.
"""


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


def block(
    way: Orientation, config: DecoderConfig, weights: Block, hidden: Array, turns: Turns, attend: Attend
) -> tuple[Array, Any]:
    """One layer: h + attention(norm(h)), then h + mlp(norm(h)).

    Args:
      way: how hidden states and weights lie.
      config: the architecture.
      weights: of this layer.
      hidden: hidden states [P, G, T, D], or as `way` has them.
      turns: angles of the tokens' positions.
      attend: see `Attend`.

    Returns:
      The new hidden states, and what `attend` keeps of this layer.
    """
    # Without this XLA all-reduces whole-batch activations on an FSDP mesh instead of gathering weights.
    hidden = way.constrain(hidden)
    x = way.norm(hidden, weights.attention_norm, config.norm_eps)
    mixed, kept = attention(way, config, weights, x, turns, attend)
    hidden = hidden + mixed
    x = way.norm(hidden, weights.mlp_norm, config.norm_eps)
    return hidden + mlp(way, weights, x), kept


def attention(
    way: Orientation, config: DecoderConfig, weights: Block, x: Array, turns: Turns, attend: Attend
) -> tuple[Array, Any]:
    """Queries, keys and values of normalized hidden states, attended and projected back to the width."""
    query, key, value = (way.project(x, w) for w in (weights.query, weights.key, weights.value))
    if config.qkv_bias:
        query, key = way.add_bias(query, weights.query_bias), way.add_bias(key, weights.key_bias)
        value = way.add_bias(value, weights.value_bias)
    if config.qk_norm:
        query = way.norm_heads(query, weights.query_norm, config.norm_eps)
        key = way.norm_heads(key, weights.key_norm, config.norm_eps)
    query, key = way.rotate(query, turns), way.rotate(key, turns)
    mixed, kept = attend(*(way.as_rows(heads) for heads in (query, key, value)))
    return way.narrow(way.merge(mixed), weights.out), kept


def mlp(way: Orientation, weights: Block, x: Array) -> Array:
    """down(silu(gate x) · up x) of normalized hidden states."""
    return way.narrow(jax.nn.silu(way.project(x, weights.gate)) * way.project(x, weights.up), weights.down)
