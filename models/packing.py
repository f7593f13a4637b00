"""Packing: a prompt and its completions lie end to end in one row, without the padding that each would have alone."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

AnyArray = jax.Array | np.ndarray


@runtime_checkable
class Packed(Protocol):
    """Where the tokens of G completions and their prompt are among C slots; `igrpo_jax.types.Packed` is one."""

    @property
    def places(self) -> Int[AnyArray, "P C"]:
        """Which token each slot holds: g T + t of a completion, G T + l of the prompt, G T + L if it is empty."""
        ...

    @property
    def slots(self) -> Int[AnyArray, "P G T"]:
        """The slot of each completion's token; C for padding, which has none."""
        ...

    @property
    def prompt_slots(self) -> Int[AnyArray, "P L"]:
        """The slot of each of the prompt's tokens, likewise."""
        ...


def positions(packed: Packed, prompt_lengths: Int[AnyArray, " P"]) -> Int[Array, "P C"]:
    """Position of each slot's token: how many tokens come before it in its completion and prompt, or in its prompt.

    Empty slots get some number, which has no effect.
    """
    _, g, t = packed.slots.shape
    places = jnp.asarray(packed.places)
    return jnp.where(places < g * t, prompt_lengths[:, None] + places % t, places - g * t)


def unpack(x: Float[Array, "P C N H"], packed: Packed) -> tuple[Float[Array, "P G T N H"], Float[Array, "P L N H"]]:
    """Completions and prompts as rows of their own again, with zeros for padding."""
    rows = _moved(x, _slots(packed), packed.places)
    count = rows.shape[1] - packed.prompt_slots.shape[1]
    return rows[:, :count].reshape(*packed.slots.shape, *x.shape[2:]), rows[:, count:]


def pack(
    completions: Float[Array, "P G T N H"], prompts: Float[Array, "P L N H"], packed: Packed
) -> Float[Array, "P C N H"]:
    """Completions and prompts end to end in C slots, with zeros in empty ones: the inverse of `unpack`."""
    p, _, _, *last = completions.shape
    rows = jnp.concatenate([completions.reshape(p, -1, *last), prompts], axis=1)
    return _moved(rows, packed.places, _slots(packed))


def _slots(packed: Packed) -> Int[Array, "P _"]:
    """The slot of each token, completions first."""
    return jnp.concatenate([packed.slots.reshape(len(packed.slots), -1), packed.prompt_slots], axis=1)


@jax.custom_vjp
def _moved(x: Float[Array, "P A N H"], to: Int[AnyArray, "P B"], back: Int[AnyArray, "P A"]) -> Float[Array, "P B N H"]:
    """x[p, to[p, b]], and 0 where `to` points past the end.

    `back` is the inverse of `to`. With it the gradient is a gather too; JAX would derive a scatter.
    """
    return jax.vmap(lambda rows, index: rows.at[index].get(mode="fill", fill_value=0))(x, to)


_moved.defvjp(
    lambda x, to, back: (_moved(x, to, back), (to, back)),
    lambda ways, change: (_moved(change, ways[1], ways[0]), None, None),
)
