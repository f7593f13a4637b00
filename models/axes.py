"""Logical axis names of weights and activations, and the one hook through which a mesh reaches the model.

A weight says what its axes are (`weight(..., embed=D, heads=N)`); `sharding.rules` says where such axes go. Without an
active mesh `constrain` does nothing, so the model runs on one device without knowing of any.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import jax

Axes = tuple[str | None, ...]

AXES = ("batch", "layers", "embed", "heads", "kv_heads", "head_dim", "mlp", "vocab")
"""Every logical axis name there is."""


@runtime_checkable
class Place(Protocol):
    """What a mesh does for the model; `sharding.Layout` makes one."""

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
    """The active mesh's place."""
    return _place.get()


@contextmanager
def placed(place: Place) -> Iterator[None]:
    """Makes whatever is traced inside lie on that place."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)
