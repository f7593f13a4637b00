"""Rotary position embedding: pairs of a head's channels turned by angles that grow with the position."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from models.config import DecoderConfig


class Turns(NamedTuple):
    """Cosine and sine of every position's angles, one angle for each pair of a head's channels.

    They broadcast against heads, whichever way round these lie, and are the same for all heads and layers.
    """

    cos: Float[Array, "..."]
    sin: Float[Array, "..."]


def rope_frequencies(config: DecoderConfig) -> np.ndarray:
    """Radians a position of each pair of head channels, float32[H/2]; Llama-3 scaling as in the Llama 3.1 release."""
    exponent = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    frequency = config.rope_theta**-exponent
    scaling = config.rope_scaling
    if scaling is not None:
        turns = scaling.original_max_position * frequency / (2 * np.pi)
        keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        keep = np.clip(keep, 0.0, 1.0)
        frequency = keep * frequency + (1 - keep) * frequency / scaling.factor
    return frequency.astype(np.float32)


def rotate(x: Float[Array, "..."], by: Turns, axis: int) -> Float[Array, "..."]:
    """Heads turned by their positions' angles, in float32.

    Args:
      x: heads.
      by: the angles of their positions.
      axis: of x, on which a head's channels are; channel i is paired with channel i + H/2, as Hugging Face does.
    """
    one, other = jnp.split(x.astype(jnp.float32), 2, axis=axis)
    cos, sin = by
    return jnp.concatenate([one * cos - other * sin, other * cos + one * sin], axis=axis).astype(x.dtype)
