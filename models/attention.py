"""Attention over several runs of keys, merged as if they were one: the shared prompt and a completion's own tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from models.config import DecoderConfig


class Prompt(NamedTuple):
    """Keys and values of the prompt that all G samples of a problem share."""

    keys: Float[Array, "P K L H"]
    values: Float[Array, "P K L H"]
    visible: Bool[Array, "P L"]


class Own(NamedTuple):
    """Keys and values of a completion's own tokens (C slots), and which of them each query may see."""

    keys: Float[Array, "P G K C H"]
    values: Float[Array, "P G K C H"]
    visible: Bool[Array, "T C"]


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


def rotate(x: Float[Array, "P G T X H"], positions: Int[Array, "P G T"], frequencies: np.ndarray) -> Array:
    """Rotary embedding in float32, the two halves of a head paired (Hugging Face's layout)."""
    angle = positions[..., None, None].astype(jnp.float32) * frequencies[None, None, None, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def attend(queries: Float[Array, "P G T N H"], prompt: Prompt | None, own: Own) -> Float[Array, "P G T N H"]:
    """Softmax attention of every query over the prompt and its own tokens together.

    The prompt is read once a problem: its keys are never repeated G times. Scores and softmax are float32.
    """
    p, g, t, n, h = queries.shape
    k = own.keys.shape[2]
    q = queries.reshape(p, g, t, k, n // k, h)
    scale = h**-0.5
    f32 = {"preferred_element_type": jnp.float32}

    own_scores = scale * jnp.einsum("PGTKRH,PGKCH->PGKRTC", q, own.keys, **f32)
    own_scores = jnp.where(own.visible[None, None, None, None], own_scores, -jnp.inf)
    peak = own_scores.max(-1)
    if prompt is not None:
        scores = scale * jnp.einsum("PGTKRH,PKLH->PKGRTL", q, prompt.keys, **f32)
        scores = jnp.where(prompt.visible[:, None, None, None, None], scores, -jnp.inf)
        peak = jnp.maximum(peak, scores.max(-1).swapaxes(1, 2))
    peak = jax.lax.stop_gradient(peak)

    own_weights = jnp.exp(own_scores - peak[..., None])
    total = own_weights.sum(-1)
    out = jnp.einsum("PGKRTC,PGKCH->PGTKRH", own_weights.astype(q.dtype), own.values, **f32)
    if prompt is not None:
        weights = jnp.exp(scores - peak.swapaxes(1, 2)[..., None])
        total = total + weights.sum(-1).swapaxes(1, 2)
        out = out + jnp.einsum("PKGRTL,PKLH->PGTKRH", weights.astype(q.dtype), prompt.values, **f32)
    out = out / jnp.transpose(total, (0, 1, 4, 2, 3))[..., None]
    return out.astype(queries.dtype).reshape(p, g, t, n, h)
