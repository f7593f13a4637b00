"""A prompt and its completions end to end, without the padding that they have as rows of one length."""

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
        """Of each slot, which token is there: g T + t, behind them the prompt's G T + l; G T + L in an empty slot."""
        ...

    @property
    def slots(self) -> Int[AnyArray, "P G T"]:
        """Of each completion's token, where it is; C for what is only padding."""
        ...

    @property
    def prompt_slots(self) -> Int[AnyArray, "P L"]:
        """Of each of the prompt's, likewise."""
        ...


def positions(packed: Packed, prompt_lengths: Int[AnyArray, " P"]) -> Int[Array, "P C"]:
    """Of each slot, how many tokens its sequence has before it; in an empty slot a number without meaning."""
    _, g, t = packed.slots.shape
    places = jnp.asarray(packed.places)
    return jnp.where(places < g * t, prompt_lengths[:, None] + places % t, places - g * t)


def unpack(x: Float[Array, "P C N H"], packed: Packed) -> tuple[Float[Array, "P G T N H"], Float[Array, "P L N H"]]:
    """Completions and prompts as rows, with zeros for padding."""
    rows = _moved(x, _slots(packed), packed.places)
    count = rows.shape[1] - packed.prompt_slots.shape[1]
    return rows[:, :count].reshape(*packed.slots.shape, *x.shape[2:]), rows[:, count:]


def pack(
    completions: Float[Array, "P G T N H"], prompts: Float[Array, "P L N H"], packed: Packed
) -> Float[Array, "P C N H"]:
    """The way back, with zeros in empty slots."""
    p, _, _, *last = completions.shape
    rows = jnp.concatenate([completions.reshape(p, -1, *last), prompts], axis=1)
    return _moved(rows, packed.places, _slots(packed))


def _slots(packed: Packed) -> Int[Array, "P _"]:
    """Of each token, where it is."""
    return jnp.concatenate([packed.slots.reshape(len(packed.slots), -1), packed.prompt_slots], axis=1)


@jax.custom_vjp
def _moved(x: Float[Array, "P A N H"], to: Int[AnyArray, "P B"], back: Int[AnyArray, "P A"]) -> Float[Array, "P B N H"]:
    """x[p, to[p, b]], zeros where there is no such; `back` is the inverse, so that the gradient is no scatter."""
    return jax.vmap(lambda rows, index: rows.at[index].get(mode="fill", fill_value=0))(x, to)


_moved.defvjp(
    lambda x, to, back: (_moved(x, to, back), (to, back)),
    lambda ways, change: (_moved(change, ways[1], ways[0]), None, None),
)
