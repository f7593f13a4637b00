"""The two ways round that a decoder computes: features last for training, features first for decoding.

|                                   | `LAST`          | `FIRST`         |
|-----------------------------------|-----------------|-----------------|
| hidden states                     | [P, G, T, D]    | [D, P, G, T]    |
| heads                             | [P, G, T, N, H] | [N, H, P, G, T] |
| a weight from the width to axes X | [D, *X]         | [*X, D]         |
| a weight from X back to the width | [*X, D]         | [D, *X]         |

Training multiplies many rows by one weight, and its matmuls have a backward pass of their own (`models.gradients`).
Decoding multiplies few rows, and on CPU that is faster with the weight on the left (benchmarks/RESULTS.md). A layer is
written once, in terms of an `Orientation`; whatever depends on the way round is in this file.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from models.axes import Axes, constrain
from models.gradients import matmul
from models.layers.norms import rms_norm
from models.layers.rotary import Turns, rotate

AnyArray = jax.Array | np.ndarray

Weight = Any
"""A weight as a policy holds it: an `nnx.Param`, or its two halves (`halve`)."""


class Orientation(NamedTuple):
    """One of the two ways round: which axes are where, and the functions that have to be written for each.

    Attributes:
      axes: logical names of the axes of hidden states.
      features: the axis of hidden states that is the width.
      heads: of projected heads, the axis of the heads and the axis of a head's channels.
      project: (hidden states, weight from the width to X) to hidden states with the axes X in place of the width.
      narrow: (those with one axis for all of X, weight from X back to the width) to hidden states. One plain matmul:
        for several contracted axes XLA would transpose the weight every time.
      turns: (positions [P, G, T], frequencies [H/2]) to angles that broadcast against heads.
    """

    axes: Axes
    features: int
    heads: tuple[int, int]
    project: Callable[[Array, Weight], Array]
    narrow: Callable[[Array, Weight], Array]
    turns: Callable[[Int[AnyArray, "P G T"], np.ndarray], Turns]

    def enter(self, hidden: Float[Array, "P G T D"]) -> Array:
        """Hidden states this way round, from features last."""
        return jnp.moveaxis(hidden, -1, self.features)

    def leave(self, hidden: Array) -> Float[Array, "P G T D"]:
        """Hidden states with features last, from this way round."""
        return jnp.moveaxis(hidden, self.features, -1)

    def constrain(self, hidden: Array) -> Array:
        """Hidden states whose rows stay on the devices of their problems."""
        return constrain(hidden, *self.axes)

    def norm(self, hidden: Array, scale: nnx.Param, eps: float) -> Array:
        """RMS norm over the width."""
        return rms_norm(hidden, scale[...], eps, self.features)

    def norm_heads(self, heads: Array, scale: nnx.Param, eps: float) -> Array:
        """RMS norm over each head's channels."""
        return rms_norm(heads, scale[...], eps, self.heads[1])

    def add_bias(self, heads: Array, bias: nnx.Param) -> Array:
        """Heads plus a bias [N, H] that is the same for all rows."""
        axes = {axis % heads.ndim for axis in self.heads}
        return heads + jnp.expand_dims(bias[...], [axis for axis in range(heads.ndim) if axis not in axes])

    def rotate(self, heads: Array, by: Turns) -> Array:
        """Rotary embedding of each head's channels."""
        return rotate(heads, by, self.heads[1])

    def as_rows(self, heads: Array) -> Float[Array, "P G T N H"]:
        """Heads as attention takes them."""
        return jnp.moveaxis(heads, self.heads, (-2, -1))

    def merge(self, heads: Float[Array, "P G T N H"]) -> Array:
        """Attention's heads side by side, one axis for all, in the place of the width."""
        return jnp.moveaxis(heads.reshape(*heads.shape[:3], -1), -1, self.features)


def turn(param: nnx.Param) -> nnx.Param:
    """A weight of one layer as `FIRST` has it, from `LAST`; one that knows no width stays as it is."""
    if "embed" not in param.axes:
        return param
    place = param.axes.index("embed")
    others = param.axes[:place] + param.axes[place + 1 :]
    value = jnp.moveaxis(param[...], place, -1 if place == 0 else 0)
    return nnx.Param(value, axes=("embed", *others) if place else (*others, "embed"))


def halve(param: nnx.Param) -> Weight:
    """A weight back to the width as two, for about half of the width each; `FIRST` multiplies one, then the other."""
    return nnx.List([nnx.Param(half, axes=param.axes) for half in jnp.array_split(param[...], 2)])


def _project_last(x: Float[Array, "*rows D"], weight: Weight) -> Array:
    w = weight[...]
    return matmul(x, w.reshape(len(w), -1)).reshape(*x.shape[:-1], *w.shape[1:])


def _narrow_last(x: Float[Array, "*rows X"], weight: Weight) -> Float[Array, "*rows D"]:
    w = weight[...]
    return matmul(x, w.reshape(-1, w.shape[-1]))


def _turns_last(positions: Int[AnyArray, "P G T"], frequencies: np.ndarray) -> Turns:
    angle = positions[..., None, None].astype(jnp.float32) * frequencies[None, None, None, None, :]
    return Turns(jnp.cos(angle), jnp.sin(angle))


def _project_first(x: Float[Array, "D *rows"], weight: Weight) -> Array:
    w = weight[...]
    return jnp.tensordot(w.reshape(-1, w.shape[-1]), x, 1).reshape(*w.shape[:-1], *x.shape[1:])


def _narrow_first(x: Float[Array, "X *rows"], weight: Weight) -> Float[Array, "D *rows"]:
    if isinstance(weight, nnx.List):
        return jnp.concatenate([_narrow_first(x, half) for half in weight])
    w = weight[...]
    return jnp.tensordot(w.reshape(len(w), -1), x, 1)


def _turns_first(positions: Int[AnyArray, "P G T"], frequencies: np.ndarray) -> Turns:
    angle = positions[None, None].astype(jnp.float32) * frequencies[None, :, None, None, None]
    # In a loop, because what a loop makes exists in memory. Layers that are no loop themselves would each compute it
    # anew, for every head: XLA on CPU drops an optimization barrier and then fuses.
    cos, sin = jax.lax.map(lambda even: jnp.where(even, jnp.cos(angle), jnp.sin(angle)), jnp.array([True, False]))
    return Turns(cos, sin)


LAST = Orientation(("batch", None, None, None), -1, (-2, -1), _project_last, _narrow_last, _turns_last)
"""Features last, for layers stacked on a leading axis: training, scoring, and everything under the master weights."""

FIRST = Orientation((None, "batch", None, None), 0, (0, 1), _project_first, _narrow_first, _turns_first)
"""Features first, for a list of layers: sampling, whose weights `turn` has turned."""
