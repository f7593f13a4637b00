"""Drawing a token from logits with one uniform number, without sorting the vocabulary."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from igrpo_jax.types import AnyArray, KeyArray

BLOCK = 128
"""Tokens a block of the two-level sums; divides the vocabularies of all common models."""

NO_TOKEN = -1
"""Drawn where the logits are no distribution: one is NaN or +inf, or all are -inf."""

ONE_BITS = 0x3F800000
"""The bit pattern of 1.0, the weight of the most probable token."""


class Truncation(NamedTuple):
    """Temperature, and which improbable tokens are never drawn; traced, so that changing a value compiles nothing.

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
    seed: KeyArray,
    step: Int[Array, ""],
    stages: Int[AnyArray, " P"],
    ids: UInt32[AnyArray, " P"],
    samples: Int[AnyArray, "P G"],
) -> Key[Array, "P G"]:
    """A random key for each sample, made from seed, step, stage, problem and the sample's number.

    So what is drawn does not depend on the place in a batch, on the batch's shape or on the devices.
    """
    of_step = jax.random.fold_in(seed, step)

    def of_problem(stage, problem, samples):
        key = jax.random.fold_in(jax.random.fold_in(of_step, stage), problem)
        return jax.vmap(lambda sample: jax.random.fold_in(key, sample))(samples)

    return jax.vmap(of_problem)(stages, ids, samples)


def uniforms(keys: Key[Array, "*rows"], position: Int[Array, "*rows"]) -> Float[Array, "*rows"]:
    """For each row a random number strictly between 0 and 1, for the token at `position` of its completion.

    The numbers are the midpoints of 2**23 equal intervals. A 0, which `jax.random.uniform` gives once in 2**23 draws,
    would draw the first token of the vocabulary however improbable it is.
    """
    one = lambda key, position: jax.random.uniform(jax.random.fold_in(key, position))
    draws = jax.vmap(one)(keys.reshape(-1), position.reshape(-1))
    return draws.reshape(keys.shape) + 2**-24


def draw(
    logits: Float[Array, "*rows V"], uniform: Float[Array, "*rows"], truncation: Truncation
) -> tuple[Int[Array, "*rows"], Float[Array, "*rows"]]:
    """Draws a token for each row by inverse CDF; also gives its log-probability under the distribution drawn from.

    The order is that of transformers and vLLM: temperature, top-k, top-p of what is left, min-p. Tokens that tie at a
    threshold are all kept. At temperature 0 the log-probabilities are those at temperature 1.

    Inside this function the vocabulary is the first axis, because the head's product of few rows comes out like that.

    Args:
      logits: float32[*rows, V].
      uniform: float32[*rows] in [0, 1).
      truncation: see `Truncation`.

    Returns:
      int32[*rows] and float32[*rows] (nats); `NO_TOKEN` and NaN for a row whose logits are no distribution.
    """
    logits = jnp.moveaxis(logits, -1, 0)
    greedy = truncation.temperature <= 0
    temperature = jnp.where(greedy, 1.0, truncation.temperature)
    peak = logits.max(0)
    weights = jnp.exp((logits - peak[None]) / temperature)
    cut = (truncation.top_k > 0) | (truncation.top_p < 1) | (truncation.min_p > 0)
    floor, mass = jax.lax.cond(
        cut & ~greedy,
        lambda: _truncate(weights, truncation),
        lambda: (jnp.zeros(weights.shape[1:], weights.dtype), _block_sums(weights)),
    )
    cumulative = jnp.cumsum(mass, axis=0)
    tokens = jax.lax.cond(
        greedy, lambda: _first_best(logits, peak), lambda: _inverse_cdf(weights, floor, mass, cumulative, uniform)
    )
    chosen = _at(logits, tokens)
    logprobs = (chosen - peak) / temperature - jnp.log(cumulative[-1])
    return jnp.where(jnp.isnan(logprobs), NO_TOKEN, tokens), logprobs


def _first_best(logits: Float[Array, "V *rows"], peak: Float[Array, "*rows"]) -> Int[Array, "*rows"]:
    """The first of the most probable tokens, found without `argmax`, which takes several times as long on CPU."""
    size = logits.shape[0]
    return jnp.minimum(jnp.min(jnp.where(logits >= peak[None], _indices(size, logits.ndim), size), axis=0), size - 1)


def _inverse_cdf(weights: Array, floor: Array, mass: Array, cumulative: Array, uniform: Array) -> Array:
    """Draws a token of weight ≥ floor: first a block of the vocabulary by its mass, then a token of the block.

    If rounding makes the target larger than all mass, the last token with any weight is drawn, so that it is never one
    of weight zero.
    """
    size = weights.shape[0]
    target = uniform * cumulative[-1]
    block = _first_past(cumulative, mass, target)
    before = _at(cumulative - mass, block)
    tokens = block[None] * BLOCK + _indices(BLOCK, block.ndim + 1)
    inside = jnp.take_along_axis(weights, jnp.minimum(tokens, size - 1), axis=0)
    inside = jnp.where((inside >= floor[None]) & (tokens < size), inside, 0.0)
    token = _first_past(jnp.cumsum(inside, axis=0), inside, target - before)
    return block * BLOCK + token


def _first_past(cumulative: Array, mass: Array, target: Array) -> Array:
    """The first index whose cumulative mass exceeds the target, but never an index without mass."""
    first = jnp.sum(cumulative <= target[None], axis=0, dtype=jnp.int32)
    indices = _indices(mass.shape[0], mass.ndim)
    last = jnp.max(jnp.where(mass > 0, indices, -1), axis=0)
    at_or_after = (indices >= first[None]) & (mass > 0)
    following = jnp.min(jnp.where(at_or_after, indices, mass.shape[0]), axis=0)
    return jnp.minimum(following, last)


def _indices(size: int, ndim: int) -> Int[Array, "..."]:
    """The numbers 0 to size - 1 along the first of `ndim` axes, the others being of size 1."""
    return jnp.arange(size, dtype=jnp.int32).reshape((size,) + (1,) * (ndim - 1))


def _at(x: Float[Array, "X *rows"], index: Int[Array, "*rows"]) -> Float[Array, "*rows"]:
    """For each row, the entry of x at the row's index."""
    return jnp.take_along_axis(x, index[None], axis=0)[0]


def _block_sums(x: Float[Array, "V *rows"]) -> Float[Array, "blocks *rows"]:
    """Sums of each `BLOCK` entries along the first axis; the last block may be shorter, so that nothing is padded."""
    whole = x.shape[0] // BLOCK * BLOCK
    sums = x[:whole].reshape(whole // BLOCK, BLOCK, *x.shape[1:]).sum(1)
    if whole == x.shape[0]:
        return sums
    return jnp.concatenate([sums, x[whole:].sum(0, keepdims=True)])


def _truncate(
    weights: Float[Array, "V *rows"], truncation: Truncation
) -> tuple[Float[Array, "*rows"], Float[Array, "blocks *rows"]]:
    """The least weight that top-k, top-p and min-p keep, and the blocks' sums of the weights that are kept.

    Weights are relative to that of the most probable token, which is 1. Tokens that have each less than (1 - top_p) / V
    of the mass have together less than 1 - top_p of it, so top-p keeps none of them. That bounds the search from below,
    at half of it to leave room for rounding.
    """
    size = weights.shape[0]
    k = jnp.where(truncation.top_k > 0, jnp.minimum(truncation.top_k, size), size).astype(jnp.float32)
    everything = jnp.zeros(weights.shape[1:], jnp.float32)
    lowest = _threshold(weights, everything, everything + size, everything + k, counting=True)
    total = _mass(weights, lowest, counting=False)
    light = jnp.maximum(lowest, (1 - truncation.top_p) / (2 * size) * total)
    wanted = jnp.where(truncation.top_p < 1, truncation.top_p * total, jnp.inf)
    floor = jnp.maximum(_threshold(weights, light, total, wanted, counting=False), truncation.min_p)
    # A weight that is NaN is not below anything: it stays, and `draw` sees it in the sums.
    return floor, _block_sums(jnp.where(weights < floor[None], 0.0, weights))


def _threshold(
    weights: Float[Array, "V *rows"],
    low: Float[Array, "*rows"],
    most: Float[Array, "*rows"],
    wanted: Float[Array, "*rows"],
    *,
    counting: bool,
) -> Float[Array, "*rows"]:
    """The weight τ ≥ low at which to cut: the tokens of weight ≥ τ reach what is wanted, and one less would not.

    Found by bisection. Positive floats order like their bit patterns, so halving the interval of patterns is exact. A
    row is settled when one token less would be too little: mostly after a dozen passes over the weights, with ties at
    the threshold after up to 30. A settled row is left alone, so that no row depends on another.

    Args:
      weights: of the tokens.
      low: weights below this are not considered.
      most: at least the mass (or number) of the tokens of weight ≥ low.
      wanted: the mass (or number) that the tokens of weight ≥ τ shall reach; if even those ≥ low do not, τ is low.
      counting: whether tokens are counted instead of weighed.
    """

    def unsettled(low, high, mass):
        lightest = 1.0 if counting else _float(low)
        return (high - low > 1) & (mass - wanted >= lightest)

    def halve(bounds):
        low, high, mass = bounds
        going = unsettled(*bounds)
        middle = low + (high - low) // 2
        found = _mass(weights, _float(middle), counting=counting)
        up, down = going & (found >= wanted), going & ~(found >= wanted)
        return jnp.where(up, middle, low), jnp.where(down, middle, high), jnp.where(up, found, mass)

    bits = jax.lax.bitcast_convert_type(low, jnp.int32)
    bounds = (bits, jnp.full_like(bits, ONE_BITS + 1), most)
    low, _, _ = jax.lax.while_loop(lambda bounds: unsettled(*bounds).any(), halve, bounds)
    return _float(low)


def _float(bits: Int[Array, "*rows"]) -> Float[Array, "*rows"]:
    """The float32 with this bit pattern."""
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _mass(weights: Float[Array, "V *rows"], low: Float[Array, "*rows"], *, counting: bool) -> Float[Array, "*rows"]:
    """The sum of the weights ≥ low, or if counting their number."""
    return _block_sums(jnp.where(weights >= low[None], 1.0 if counting else weights, 0.0)).sum(0)
