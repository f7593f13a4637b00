"""How a weight is declared: the names of its axes, their sizes and its first values, in one place."""

import jax
import jax.numpy as jnp
from flax import nnx


def weight(rngs: nnx.Rngs, *, std: float | None = 0.02, **axes: int) -> nnx.Param:
    """A float32 parameter with named axes.

    Args:
      rngs: random streams; `params` is drawn from.
      std: standard deviation of normal values around 0; None for ones, 0 for zeros.
      **axes: name and size of each axis, in order; `models.axes.AXES` are the names that a mesh knows.
    """
    shape = tuple(axes.values())
    value = jnp.ones(shape) if std is None else std * jax.random.normal(rngs.params(), shape)
    return nnx.Param(value, axes=tuple(axes))
