"""Logical axis names of weights and activations, and the one hook through which a mesh reaches the model.

A weight says what its axes are (`weight(..., embed=D, heads=N)`); `sharding.rules` says where such axes go. Without an
active mesh `constrain` does nothing, so the model runs on one device without knowing of any.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

AXES = ("batch", "layers", "embed", "heads", "kv_heads", "head_dim", "mlp", "vocab")
"""Every logical axis name there is."""

_constrain: ContextVar[Callable[[jax.Array, tuple[str | None, ...]], jax.Array] | None] = ContextVar(
    "constrain", default=None
)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins the layout of an activation whose axes are named; a no-op unless a mesh is active."""
    hook = _constrain.get()
    return x if hook is None else hook(x, axes)


@contextmanager
def constraining(hook: Callable[[jax.Array, tuple[str | None, ...]], jax.Array]) -> Iterator[None]:
    """Makes `constrain` call `hook(x, axes)` for whatever is traced inside."""
    token = _constrain.set(hook)
    try:
        yield
    finally:
        _constrain.reset(token)
