"""Drawing a token from logits with one uniform number, without sorting the vocabulary."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from igrpo_jax.types import AnyArray, KeyArray

BLOCK = 256
"""Tokens a block of the two-level inverse CDF."""


class Truncation(NamedTuple):
    """How the distribution is sharpened and cut; traced, so that changing a value compiles nothing.

    Attributes:
      temperature: 0 is greedy.
      top_k: 0 keeps all.
      top_p: 1 keeps all.
      min_p: 0 keeps all.
    """

    temperature: Float[AnyArray | np.number, ""]
    top_k: Int[AnyArray | np.number, ""]
    top_p: Float[AnyArray | np.number, ""]
    min_p: Float[AnyArray | np.number, ""]


def row_keys(
    seed: KeyArray, step: Int[Array, ""], stage: Int[Array, ""], ids: UInt32[Array, " P"], num_samples: int
) -> Key[Array, "P G"]:
    """Keys named by (seed, step, stage, problem, sample): batch position, batch shape and devices play no part."""
    key = jax.random.fold_in(jax.random.fold_in(seed, step), stage)
    problems = jax.vmap(lambda i: jax.random.fold_in(key, i))(ids)
    return jax.vmap(lambda k: jax.vmap(lambda j: jax.random.fold_in(k, j))(jnp.arange(num_samples)))(problems)


def uniforms(keys: Key[Array, "*rows"], position: Int[Array, ""]) -> Float[Array, "*rows"]:
    """One number strictly inside (0, 1) a row for the token at `position` of its completion.

    They are the midpoints of 2**23 equal intervals: a 0, which `jax.random.uniform` gives once in 2**23 draws, would
    draw the first token of the vocabulary however improbable it is.
    """
    flat = keys.reshape(-1)
    draws = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, position)))(flat)
    return draws.reshape(keys.shape) + 2**-24


def draw(
    logits: Float[Array, "*rows V"], uniform: Float[Array, "*rows"], truncation: Truncation
) -> tuple[Int[Array, "*rows"], Float[Array, "*rows"]]:
    """A token a row by inverse CDF, and its log-probability under the distribution it was drawn from.

    Order as in transformers and vLLM: temperature, top-k, top-p of what is left, min-p. Ties at a threshold are all
    kept. Greedy rows report the log-probability at temperature 1.

    Args:
      logits: float32[*rows, V].
      uniform: float32[*rows] in [0, 1).
      truncation: see `Truncation`.

    Returns:
      int32[*rows] and float32[*rows] (nats).
    """
    greedy = truncation.temperature <= 0
    temperature = jnp.where(greedy, 1.0, truncation.temperature)
    peak = logits.max(-1, keepdims=True)
    weights = jnp.exp((logits - peak) / temperature)
    cut = (truncation.top_k > 0) | (truncation.top_p < 1) | (truncation.min_p > 0)
    weights = jax.lax.cond(cut & ~greedy, lambda w: _truncate(w, truncation), lambda w: w, weights)
    tokens, total = jax.lax.cond(greedy, _first_best, _inverse_cdf, weights, uniform)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)
    logprobs = (chosen - peak) / temperature - jnp.log(total)[..., None]
    return tokens, logprobs[..., 0]


def _first_best(weights: Array, uniform: Array) -> tuple[Array, Array]:
    """The most probable token, the first of equals, and the weights' sum."""
    del uniform
    return jnp.argmax(weights, axis=-1).astype(jnp.int32), weights.sum(-1)


def _inverse_cdf(weights: Float[Array, "*rows V"], uniform: Float[Array, "*rows"]) -> tuple[Array, Array]:
    """First a block of the vocabulary by its mass, then a token inside it; also returns the weights' sum.

    Rounding can push the target past the last mass; the last token with any weight is then meant, so a token of
    weight zero is never drawn.
    """
    size = weights.shape[-1]
    pad = -size % BLOCK
    padded = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, pad)])
    blocks = padded.reshape(*weights.shape[:-1], -1, BLOCK)
    mass = blocks.sum(-1)
    cumulative = jnp.cumsum(mass, axis=-1)
    total = cumulative[..., -1]
    target = uniform * total
    block = _first_past(cumulative, mass, target)
    before = jnp.take_along_axis(cumulative - mass, block[..., None], axis=-1)[..., 0]
    inside = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    token = _first_past(jnp.cumsum(inside, axis=-1), inside, target - before)
    return block * BLOCK + token, total


def _first_past(cumulative: Array, mass: Array, target: Array) -> Array:
    """First index whose cumulative mass exceeds the target, never one without mass."""
    first = jnp.sum(cumulative <= target[..., None], axis=-1, dtype=jnp.int32)
    slots = jnp.expand_dims(jnp.arange(mass.shape[-1], dtype=jnp.int32), tuple(range(mass.ndim - 1)))
    last = jnp.max(jnp.where(mass > 0, slots, -1), axis=-1)
    at_or_after = (slots >= first[..., None]) & (mass > 0)
    following = jnp.min(jnp.where(at_or_after, slots, mass.shape[-1]), axis=-1)
    return jnp.minimum(following, last)


def _truncate(weights: Float[Array, "*rows V"], truncation: Truncation) -> Float[Array, "*rows V"]:
    """Zeroes what top-k, top-p and min-p cut off. Weights are relative to the most probable token's, which is 1."""
    size = weights.shape[-1]
    k = jnp.where(truncation.top_k > 0, truncation.top_k, size).astype(jnp.float32)
    kept = jnp.where(weights >= _threshold(weights, jnp.ones_like(weights), k), weights, 0.0)
    wanted = jnp.where(truncation.top_p < 1, truncation.top_p, 0.0) * kept.sum(-1)
    floor = jnp.where(truncation.top_p < 1, _threshold(kept, kept, wanted), 0.0)
    floor = jnp.maximum(floor, truncation.min_p)
    return jnp.where(kept >= floor, kept, 0.0)


def _threshold(
    weights: Float[Array, "*rows V"], mass: Float[Array, "*rows V"], wanted: Array
) -> Float[Array, "*rows 1"]:
    """The largest τ for which the mass of all weights ≥ τ is at least `wanted`: exact, by bisecting float32 bits.

    Positive floats order like their bit patterns, so 31 halvings of [0, 1] end at one value.
    """
    wanted = jnp.broadcast_to(wanted, weights.shape[:-1])

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low + 1) // 2
        value = jax.lax.bitcast_convert_type(middle, jnp.float32)
        enough = jnp.where(weights >= value[..., None], mass, 0.0).sum(-1) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    one = 0x3F800000  # the bits of 1.0
    low = jnp.zeros(weights.shape[:-1], jnp.int32)
    bits, _ = jax.lax.fori_loop(0, 31, halve, (low, jnp.full_like(low, one)))
    return jax.lax.bitcast_convert_type(bits, jnp.float32)[..., None]
