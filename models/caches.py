"""What completions attend to: prompts' keys and values, and the ring of each completion's own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from models.axes import constrain

AnyArray = jax.Array | np.ndarray
PyTree = Any


class KeyValues(NamedTuple):
    """Keys and values of one layer, or of all: stacked arrays for a stacked policy, one entry a layer for a view.

    Slots are the last axis of the keys and the last but one of the values, so that both of attention's products read
    them as they lie.
    """

    keys: Float[Array, "..."]
    values: Float[Array, "..."]


class Prefix(NamedTuple):
    """What completions attend to, one row a problem: of each layer keys [P, K, H, L] and values [P, K, L, H]."""

    layers: Any
    lengths: Int[AnyArray, " P"]


class Cache(NamedTuple):
    """The completions' own tokens, of each layer keys [P G, K, H, capacity] and values [P G, K, capacity, H].

    The slots are a ring: all rows write what comes next into the same slot, `next`, wherever they are in their own
    completions, and see as many of the slots before it as they have tokens. A slot of its own for each row would be a
    scatter, for which the TPU compiler writes row by row and copies the cache.
    """

    layers: Any
    next: Int[Array, ""]


class Ring(NamedTuple):
    """Where new tokens are written into a cache, and which slots they then see."""

    place: Int[Array, ""]
    visible: Bool[Array, "P G T C"]


def new_cache(policy: Any, prefix: Prefix, num_samples: int, capacity: int) -> Cache:
    """An empty cache of `capacity` own tokens for `num_samples` completions of every prompt of the prefix."""

    def empty(x, *last):
        *stack, p, k, _, _ = x.shape
        cache = jnp.zeros((*stack, p * num_samples, k, *last), x.dtype)
        return constrain(cache, *[None] * len(stack), "batch", "kv_heads", None, None)

    h = policy.config.head_dim
    both = lambda layer: KeyValues(empty(layer.keys, h, capacity), empty(layer.values, capacity, h))
    layers = jax.tree.map(both, prefix.layers, is_leaf=lambda x: isinstance(x, KeyValues))
    return Cache(layers, jnp.zeros((), jnp.int32))


def new_prefix(policy: Any, size: int, capacity: int) -> Prefix:
    """A prefix of `size` prompts of no token, with room for `capacity`, for a sampling view."""
    c = policy.config
    empty = lambda *last: constrain(
        jnp.zeros((size, c.kv_heads, *last), policy.embed[...].dtype), "batch", "kv_heads", None, None
    )
    layers = [KeyValues(empty(c.head_dim, capacity), empty(capacity, c.head_dim)) for _ in range(c.layers)]
    return Prefix(layers, constrain(jnp.zeros(size, jnp.int32), "batch"))


def resize(tree: PyTree, capacity: int) -> PyTree:
    """The same prefix or cache with room for `capacity` tokens a row; of too many the first of a prompt are kept, and
    the last of completions.
    """

    def fit(x, slots):
        size = x.shape[slots]
        kept = min(size, capacity)
        if isinstance(tree, Cache):
            # A gather: `jnp.roll` makes a second copy of all caches on CPU.
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
        # A ring begins with its oldest slot now, and the next token comes behind the newest.
        return Cache(layers, jnp.asarray(min(capacity_of(tree), capacity) % capacity, jnp.int32))
    return tree._replace(layers=layers)


def capacity_of(cache: Cache) -> int:
    """Slots of a ring."""
    values = cache.layers[0].values if isinstance(cache.layers, list) else cache.layers.values
    return values.shape[-2]


def ring_of(cache: Cache, used: Int[Array, "P G"], count: int) -> Ring:
    """Where the first of `count` tokens is written, and the slots that each sees: its own and `used` more."""
    token = jnp.arange(count)[None, None, :, None]
    age = (cache.next + token - jnp.arange(capacity_of(cache))[None, None, None]) % capacity_of(cache)
    return Ring(cache.next, age <= used[..., None, None] + token)
