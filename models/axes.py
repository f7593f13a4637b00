"""Names for the axes of weights and activations, and the one hook through which a mesh reaches the model.

A weight says what its axes are (`weight(..., embed=D, heads=N)`); `sharding.rules` says over which axes of the mesh
they are split. Without an active mesh `constrain` does nothing, so on one device the model knows of no mesh.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import jax

Axes = tuple[str | None, ...]

AXES = ("batch", "layers", "embed", "heads", "kv_heads", "head_dim", "mlp", "vocab")
"""All logical axis names."""


@runtime_checkable
class Place(Protocol):
    """What the model asks of a mesh; `sharding.layout.MeshPlace` is one."""

    device: Any
    """One of its devices, all of which are alike."""
    flash: bool
    """Whether flash attention is wanted."""

    def constrain(self, x: jax.Array, axes: Axes) -> jax.Array:
        """Pins the layout of an activation whose axes are named."""
        ...

    def per_device(self, function: Callable, arrays: Sequence[jax.Array], axes: Sequence[Axes]) -> jax.Array:
        """Calls the function on each device's part of the arrays; the result lies as the first of them."""
        ...

    def ways(self, axis: str, size: int) -> int:
        """Into how many parts an axis of that size is cut."""
        ...


_place: ContextVar[Place | None] = ContextVar("place", default=None)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins the layout of an activation whose axes are named; a no-op unless a mesh is active."""
    place = _place.get()
    return x if place is None else place.constrain(x, axes)


def here() -> Place | None:
    """What the active mesh offers the model; None without one."""
    return _place.get()


@contextmanager
def placed(place: Place) -> Iterator[None]:
    """Makes a place the active one for whatever is traced inside."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)
