"""A prompt's completions end to end, without the padding that they have as rows of one length."""

from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int

AnyArray = jax.Array | np.ndarray


@runtime_checkable
class Packed(Protocol):
    """Where the tokens of G completions are among C slots; `igrpo_jax.types.Packed` is one."""

    @property
    def places(self) -> Int[AnyArray, "P C"]:
        """Of each slot, which token is there: g T + t; G T in an empty slot."""
        ...

    @property
    def slots(self) -> Int[AnyArray, "P G T"]:
        """Of each token, where it is; C for what is only padding."""
        ...


def unpack(x: Float[Array, "P 1 C N H"], packed: Packed) -> Float[Array, "P G T N H"]:
    """Completions as rows, with zeros for padding."""
    slots = packed.slots.reshape(len(x), -1)
    return _moved(x[:, 0], slots, packed.places).reshape(*packed.slots.shape, *x.shape[3:])


def pack(x: Float[Array, "P G T N H"], packed: Packed) -> Float[Array, "P 1 C N H"]:
    """The way back, with zeros in empty slots."""
    slots = packed.slots.reshape(len(x), -1)
    return _moved(x.reshape(*slots.shape, *x.shape[3:]), packed.places, slots)[:, None]


@jax.custom_vjp
def _moved(x: Float[Array, "P A N H"], to: Int[AnyArray, "P B"], back: Int[AnyArray, "P A"]) -> Float[Array, "P B N H"]:
    """x[p, to[p, b]], zeros where there is no such; `back` is the inverse, so that the gradient is no scatter."""
    return jax.vmap(lambda rows, index: rows.at[index].get(mode="fill", fill_value=0))(x, to)


_moved.defvjp(
    lambda x, to, back: (_moved(x, to, back), (to, back)),
    lambda ways, change: (_moved(change, ways[1], ways[0]), None, None),
)
