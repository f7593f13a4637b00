"""Keys and values that are kept: of prompts (`Prefix`), and of the completions being decoded (`Cache`, a ring)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from models.axes import constrain

AnyArray = jax.Array | np.ndarray
PyTree = Any


class KeyValues(NamedTuple):
    """Keys and values of one layer, or, with layers as the leading axis, of all layers of a stacked policy.

    Slots are the last axis of the keys and the last but one of the values: the order in which attention's two products
    read them, so neither is transposed.
    """

    keys: Float[Array, "..."]
    values: Float[Array, "..."]


class Prefix(NamedTuple):
    """Keys and values of prompts, to which all their completions attend.

    Attributes:
      layers: keys [P, K, H, L] and values [P, K, L, H] of each layer: a list of `KeyValues` under a sampling view, one
        stacked `KeyValues` under a stacked policy.
      lengths: tokens of each prompt; slots behind them are padding.
    """

    layers: Any
    lengths: Int[AnyArray, " P"]


class Cache(NamedTuple):
    """Keys and values of the tokens that each completion has decoded so far.

    The slots are a ring. At each step all rows write into the same slot, `next`, however long their completions are,
    and each row sees as many of the slots before it as it has tokens. If each row wrote to a slot of its own, that
    would be a scatter, for which the TPU compiler writes row by row and copies the cache.

    Attributes:
      layers: keys [P G, K, H, capacity] and values [P G, K, capacity, H] of each layer, a list or stacked like those of
        a `Prefix`.
      next: the slot that is written next.
    """

    layers: Any
    next: Int[Array, ""]


class Ring(NamedTuple):
    """Where new tokens are written into a cache, and which slots they then see."""

    place: Int[Array, ""]
    visible: Bool[Array, "P G T C"]


def new_cache(policy: Any, prefix: Prefix, num_samples: int, capacity: int) -> Cache:
    """An empty cache with room for `capacity` tokens of each of `num_samples` completions a prompt."""

    def empty(x, *last):
        *stack, p, k, _, _ = x.shape
        cache = jnp.zeros((*stack, p * num_samples, k, *last), x.dtype)
        return constrain(cache, *[None] * len(stack), "batch", "kv_heads", None, None)

    h = policy.config.head_dim
    both = lambda layer: KeyValues(empty(layer.keys, h, capacity), empty(layer.values, capacity, h))
    layers = jax.tree.map(both, prefix.layers, is_leaf=lambda x: isinstance(x, KeyValues))
    return Cache(layers, jnp.zeros((), jnp.int32))


def new_prefix(policy: Any, size: int, capacity: int) -> Prefix:
    """A prefix of `size` empty prompts with room for `capacity` tokens each, for a sampling view."""
    c = policy.config
    empty = lambda *last: constrain(
        jnp.zeros((size, c.kv_heads, *last), policy.embed[...].dtype), "batch", "kv_heads", None, None
    )
    layers = [KeyValues(empty(c.head_dim, capacity), empty(capacity, c.head_dim)) for _ in range(c.layers)]
    return Prefix(layers, constrain(jnp.zeros(size, jnp.int32), "batch"))


def resize(tree: PyTree, capacity: int) -> PyTree:
    """The same prefix or cache with room for `capacity` tokens a row.

    If it holds more, a prompt keeps its first tokens and a completion its last.
    """

    def fit(x, slots):
        size = x.shape[slots]
        kept = min(size, capacity)
        if isinstance(tree, Cache):
            # By a gather, oldest slot first: `jnp.roll` makes a second copy of all caches on CPU.
            x = jnp.take(x, (tree.next + size - kept + jnp.arange(kept)) % size, axis=slots, mode="clip")
        else:
            x = jax.lax.slice_in_dim(x, 0, kept, axis=slots)
        more = [(0, 0)] * x.ndim
        more[slots] = (0, capacity - kept)
        return jnp.pad(x, more)

    def layer(x):
        return KeyValues(fit(x.keys, x.keys.ndim - 1), fit(x.values, x.values.ndim - 2))

    layers = jax.tree.map(layer, tree.layers, is_leaf=lambda x: isinstance(x, KeyValues))
    if isinstance(tree, Cache):
        # The oldest token is in slot 0 now, so the next one is written behind the newest.
        return Cache(layers, jnp.asarray(min(capacity_of(tree), capacity) % capacity, jnp.int32))
    return tree._replace(layers=layers)


def capacity_of(cache: Cache) -> int:
    """How many tokens of a completion a cache has room for."""
    values = cache.layers[0].values if isinstance(cache.layers, list) else cache.layers.values
    return values.shape[-2]


def ring_of(cache: Cache, used: Int[Array, "P G"], count: int) -> Ring:
    """Where `count` new tokens of every row are written, and which slots each of them sees.

    Args:
      cache: before they are written.
      used: tokens of each row that are in the cache already and that the new ones continue.
      count: T; token t sees the `used` cached tokens, the new ones before it, and itself.
    """
    token = jnp.arange(count)[None, None, :, None]
    age = (cache.next + token - jnp.arange(capacity_of(cache))[None, None, None]) % capacity_of(cache)
    return Ring(cache.next, age <= used[..., None, None] + token)
