"""Softmax attention over two runs of keys as if they were one: a shared prompt's, and a sample's own tokens'."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from models.axes import Place, here
from models.kernels import Kernel, find

AnyArray = jax.Array | np.ndarray


class Prompt(NamedTuple):
    """Keys and values of the prompt that all G samples of a problem share.

    Of its L slots the first `lengths` hold tokens; the others are padding, which no query sees.
    """

    keys: Float[Array, "P K H L"]
    values: Float[Array, "P K L H"]
    lengths: Int[AnyArray, " P"]


class Own(NamedTuple):
    """Keys and values of completions' own tokens, one row of C slots for each of the B = P G completions.

    `visible` says which slots each query sees. None means causal attention: the queries are those of the C slots
    themselves, and each sees itself and the slots before it.
    """

    keys: Float[Array, "B K H C"]
    values: Float[Array, "B K C H"]
    visible: Bool[Array, "P G T C"] | None


BLOCK = 128
"""Most queries of a completion or prompt whose scores exist at once."""

SEGMENTS = 4
"""Most parts that many queries are cut into; each part is compiled for itself and runs its blocks in a loop.

In causal attention a part leaves out the keys behind it: more parts compute less and take longer to compile.
"""

UNSEEN = -1e30
"""Score of a key that a query does not see: finite, so that a run of no visible key has no NaN in it."""


def attend(queries: Float[Array, "P G T N H"], prompt: Prompt | None, own: Own) -> Float[Array, "P G T N H"]:
    """Softmax attention of every query over the prompt and its own tokens together.

    The prompt's keys are read once a problem and never repeated G times. More than `BLOCK` queries are taken in blocks,
    which the backward pass recomputes one by one, so memory grows with T and with L but never with their product. A
    causal block leaves out the keys that stand behind (see `SEGMENTS`). Where the platform has a flash
    kernel, that is used instead of blocks; for it every completion has a copy of its prompt's keys.
    """
    t = queries.shape[2]
    if t <= BLOCK:
        return _attend(queries, prompt, own, 0)
    place = here()
    kernel = None if place is None else _kernel(place, queries, own)
    if place is not None and kernel is not None:
        return _attend_kernel(place, kernel, queries, prompt, own)
    count = -(-t // BLOCK)
    size = -(-t // count)
    stride = size * max(2, -(-count // SEGMENTS))
    return jnp.concatenate(
        [_attend_blocks(queries, prompt, own, start, min(start + stride, t), size) for start in range(0, t, stride)],
        axis=2,
    )


class Partial(NamedTuple):
    """Attention over some of the keys, not yet normalized, so that it can be merged with attention over others.

    Attributes:
      out: numerator of the softmax average, Σ exp(score - peak) value.
      total: its denominator, Σ exp(score - peak).
      peak: the largest score. A normalized output and its log-sum-exp are `Partial(out, ones, logsumexp)`.
    """

    out: Float[Array, "*rows H"]
    total: Float[Array, "*rows 1"]
    peak: Float[Array, "*rows 1"]


def attend_run(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B K H C"],
    values: Float[Array, "B K C H"],
    visible: Bool[Array, "#B #T C"],
) -> Partial:
    """Attention over one run of keys, written in plain XLA operations.

    Args:
      queries: of B rows; N is a multiple of K.
      keys: C slots a row.
      values: likewise.
      visible: the slots that each query sees. A query may see none: its result then has no weight in `merge`.

    Returns:
      float32[B, T, N, ...].
    """
    b, t, n, h = queries.shape
    k = keys.shape[1]
    f32 = {"preferred_element_type": jnp.float32}
    # Heads come before queries, which makes both products plain batched matmuls: several times as fast on CPU.
    q = queries.reshape(b, t, k, n // k, h).transpose(0, 2, 3, 1, 4).reshape(b, k, -1, h)
    # The mask is added, not selected by: the backward pass of `where` would keep it, as large as the scores.
    unseen = jnp.where(visible, 0.0, UNSEEN)[:, None, None]
    scores = h**-0.5 * jnp.einsum("BKMH,BKHC->BKMC", q, keys, **f32)
    scores = scores.reshape(b, k, n // k, t, -1) + unseen
    peak = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - peak)
    mixed = weights.astype(q.dtype).reshape(b, k, q.shape[2], -1)
    out = jnp.einsum("BKMC,BKCH->BKMH", mixed, values, **f32)
    per_query = lambda x: x.reshape(b, k, n // k, t, -1).transpose(0, 3, 1, 2, 4).reshape(b, t, n, -1)
    return Partial(per_query(out), per_query(weights.sum(-1, keepdims=True)), per_query(peak))


def merge(first: Partial, second: Partial) -> Partial:
    """Attention over two runs of keys as if they were one, from the attention over each."""
    peak = jax.lax.stop_gradient(jnp.maximum(first.peak, second.peak))
    a, b = jnp.exp(first.peak - peak), jnp.exp(second.peak - peak)
    return Partial(a * first.out + b * second.out, a * first.total + b * second.total, peak)


def _attend(queries, prompt: Prompt | None, own: Own, start: Int[Array, ""] | int) -> Float[Array, "P G T N H"]:
    """`attend` for all queries at once. In causal attention the first query is that of slot `start`."""
    p, g, t, n, h = queries.shape
    fold = lambda x: x.reshape(p * g, *x.shape[2:])
    split = lambda x: x.reshape(p, g, t, *x.shape[2:])
    if own.visible is None:
        visible = (jnp.arange(own.values.shape[2])[None] <= start + jnp.arange(t)[:, None])[None]
    else:
        visible = fold(own.visible)
    found = jax.tree.map(split, attend_run(fold(queries), own.keys, own.values, visible))
    if prompt is not None:
        together = queries.reshape(p, g * t, n, h)
        real = jnp.arange(prompt.values.shape[2])[None] < prompt.lengths[:, None]
        shared = attend_run(together, prompt.keys, prompt.values, real[:, None])
        found = merge(found, jax.tree.map(split, shared))
    return (found.out / found.total).astype(queries.dtype)


def _kernel(place: Place, queries: Float[Array, "P G T N H"], own: Own) -> Kernel | None:
    """The flash kernel of the mesh's devices for these queries; None where there is none.

    Kernels know causal attention only, not the slots of a ring. On a mesh each device has its own heads, so query heads
    must lie on the devices of their key heads.
    """
    if not place.flash or own.visible is not None:
        return None
    if place.ways("heads", queries.shape[3]) != place.ways("kv_heads", own.keys.shape[1]):
        return None
    return find(place.device, queries.dtype, queries.shape[-1])


def _attend_kernel(place: Place, kernel: Kernel, queries, prompt: Prompt | None, own: Own) -> Float[Array, "P G T N H"]:
    """`attend` by a flash kernel: every sample is a row of its own, with a copy of its prompt's keys in front."""

    def local(queries, keys, values, *prompt):
        p, g, t, n, h = queries.shape
        fold = lambda x: x.reshape(p * g, *x.shape[2:])
        keys, values = jnp.moveaxis(keys, -1, 1), jnp.moveaxis(values, -2, 1)
        lengths = jnp.zeros(p * g, jnp.int32)
        if prompt:
            first, second, lengths = (jnp.repeat(x, g, axis=0) for x in prompt)
            keys = jnp.concatenate([jnp.moveaxis(first, -1, 1), keys], axis=1)
            values = jnp.concatenate([jnp.moveaxis(second, -2, 1), values], axis=1)
        return kernel(fold(queries), keys, values, lengths).reshape(p, g, t, n, h)

    key_heads = ("batch", "kv_heads", None, None)
    arrays, axes = [queries, *own[:2]], [("batch", None, None, "heads", None), key_heads, key_heads]
    if prompt is not None:
        arrays += [prompt.keys, prompt.values, jnp.asarray(prompt.lengths)]
        axes += [key_heads, key_heads, ("batch",)]
    return place.per_device(local, arrays, axes)


def _attend_blocks(queries, prompt: Prompt | None, own: Own, start: int, end: int, size: int):
    """`attend` for queries `start` to `end`, `size` at a time in a loop."""
    seen = end if own.visible is None else own.values.shape[2]
    visible = None if own.visible is None else own.visible[:, :, start:end]
    queries = queries[:, :, start:end]

    def block(first, queries, visible, prompt, keys, values):
        # Keys are sliced inside the recomputed function: the backward pass slices again and keeps no copy a block.
        return _attend(queries, prompt, Own(keys[..., :seen], values[..., :seen, :], visible), first)

    if end - start <= size:
        return jax.checkpoint(block)(start, queries, visible, prompt, own.keys, own.values)
    count = -(-(end - start) // size)

    def split(x):
        x = jnp.pad(x, [(0, count * size - (end - start) if axis == 2 else 0) for axis in range(x.ndim)])
        return jnp.moveaxis(x.reshape(*x.shape[:2], count, size, *x.shape[3:]), 2, 0)

    def step(_, inputs):
        return None, jax.checkpoint(block, prevent_cse=False)(*inputs, prompt, own.keys, own.values)

    firsts = start + size * jnp.arange(count)
    _, out = jax.lax.scan(step, None, (firsts, split(queries), None if visible is None else split(visible)))
    out = jnp.moveaxis(out, 0, 2)
    return out.reshape(*out.shape[:2], -1, *out.shape[4:])[:, :, : end - start]
