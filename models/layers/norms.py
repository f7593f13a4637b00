"""Normalization of hidden states and of heads."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x: Float[Array, "*rows"], scale: Float[Array, " X"], eps: float, axis: int = -1) -> Float[Array, "*rows"]:
    """x / sqrt(mean(x²) + ε) over `axis` in float32, then times `scale` in x's dtype, as Llama does."""
    wide = x.astype(jnp.float32)
    normal = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=axis, keepdims=True) + eps)
    return normal.astype(x.dtype) * jnp.expand_dims(scale, [i for i in range(x.ndim) if i != axis % x.ndim])
