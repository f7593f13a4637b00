"""Flash attention by the kernels of TPU and NVIDIA GPU; no other file depends on the platform's attention.

A kernel attends from all T tokens of a completion at once, to its prompt and itself as one row of keys:

    out = kernel(queries[B, T, N, H], keys[B, L + T, K, H], values[B, L + T, K, H], lengths[B])

The first L keys are a prompt's, of which `lengths` are real; the others are the completion's own, seen causally. So
each row needs a copy of its prompt's keys, of one layer at a time. In return the kernels differentiate the softmax over
all keys themselves; attention over two runs of keys would have to be merged by hand, forward and backward.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Kernel = Callable[..., Array]


def find(device: Any, dtype: Any, head_dim: int) -> Kernel | None:
    """The flash kernel for devices like this one, or None if it has none for such heads.

    Args:
      device: a JAX device.
      dtype: of queries and keys.
      head_dim: H.
    """
    if device.platform == "tpu":
        return splash
    # What cuDNN takes, see `jax.nn.dot_product_attention`; heads of more than 128 channels need a Hopper.
    known = dtype in (jnp.bfloat16, jnp.float16) and head_dim <= 128 and head_dim % 8 == 0
    return cudnn if known and device.platform in ("gpu", "cuda") and _is_ampere(device) else None


def _is_ampere(device: Any) -> bool:
    """Whether an NVIDIA GPU has compute capability 8 or more; one that a plan only describes is taken to have it."""
    capability = re.fullmatch(r"(\d+)\.\d+", str(getattr(device, "compute_capability", "8.0")))
    return capability is not None and int(capability[1]) >= 8


def splash(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    lengths: Int[Array, " B"],
    *,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """JAX's splash attention for TPU; a prompt's padding is a segment of its own, which no query sees.

    The kernel wants queries that are already scaled, so in bfloat16 they are rounded once more than in plain attention.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    t, heads, width = queries.shape[1:]
    prompt = keys.shape[1] - t
    rows, columns = _block(t), _block(keys.shape[1])
    # The kernel takes whole blocks. Added queries need as many added own keys, behind the real ones; the rest of what
    # is missing to whole blocks of keys becomes padding of the prompt.
    more = -t % rows
    gap = -(keys.shape[1] + more) % columns

    def fill(x):
        front, own = jnp.pad(x[:, :prompt], _after(gap)), jnp.pad(x[:, prompt:], _after(more))
        return jnp.moveaxis(jnp.concatenate([front, own], axis=1), 1, 2)

    slot = jnp.arange(keys.shape[1] + gap + more)[None]
    real = (slot < lengths[:, None]) | (slot >= prompt + gap)
    segments = kernels.SegmentIds(jnp.ones((len(keys), t + more), jnp.int32), real.astype(jnp.int32))
    mask = masks.CausalMask((t + more, slot.shape[1]), offset=prompt + gap)
    kernel = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * heads), head_shards=1, q_seq_shards=1, interpret=interpret,
        block_sizes=kernels.BlockSizes(
            block_q=rows, block_kv=columns, block_q_dkv=rows, block_kv_dkv=columns, block_q_dq=rows, block_kv_dq=columns
        ),
    )  # fmt: skip
    scaled = jnp.moveaxis(jnp.pad(queries * width**-0.5, _after(more)), 1, 2)
    out: Any = jax.vmap(kernel)(scaled, fill(keys), fill(values), segments)
    return jnp.moveaxis(out, 2, 1)[:, :t].astype(queries.dtype)


def cudnn(
    queries: Float[Array, "B T N H"],
    keys: Float[Array, "B S K H"],
    values: Float[Array, "B S K H"],
    lengths: Int[Array, " B"],
    *,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> Float[Array, "B T N H"]:
    """cuDNN's flash attention; the completion moves up to its prompt's end, and all padding lies behind both.

    Then prompt and completion are one causal sequence. Because cuDNN's causal mask wants as many queries as keys, the
    prompt has queries too, of zeros.
    """
    t = queries.shape[1]
    prompt = keys.shape[1] - t
    put = jax.vmap(lambda row, own, start: jax.lax.dynamic_update_slice_in_dim(row, own, start, axis=0))
    take = jax.vmap(lambda row, start: jax.lax.dynamic_slice_in_dim(row, start, t, axis=0))
    closed = lambda x: put(x, x[:, prompt:], lengths)
    spread = put(jnp.zeros((*keys.shape[:2], *queries.shape[2:]), queries.dtype), queries, lengths)
    out = jax.nn.dot_product_attention(
        spread, closed(keys), closed(values), is_causal=True, implementation=implementation
    )
    return take(out, lengths)


def _block(size: int) -> int:
    """Tokens of a block of the splash kernel: large blocks are faster, unless they need much padding."""
    return next((block for block in (512, 256) if -size % block <= size // 8), 128)


def _after(count: int) -> list[tuple[int, int]]:
    """`jnp.pad` widths that add `count` entries at the end of the second of four axes."""
    return [(0, 0), (0, count), (0, 0), (0, 0)]
