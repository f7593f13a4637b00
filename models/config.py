"""The architecture of a decoder as plain values: sizes, and which of the variants it has."""

from dataclasses import dataclass
from typing import Literal

Remat = Literal["full", "dots", "none"]
"""What the backward pass recomputes: "full", whole layers; "dots", all but the outputs of weight matrices; "none"."""


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama-3's frequency-dependent stretching of rotary wavelengths."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A pre-norm decoder with rotary grouped-query attention and a gated SiLU MLP: Llama, Mistral, Qwen2, Qwen3.

    Attributes:
      family: the Hugging Face `model_type` that it came from and is exported as. Nothing is computed by it.
      qkv_bias: query, key and value projections have biases (Qwen2).
      qk_norm: queries and keys are RMS-normalized a head (Qwen3).
      tied: the unembedding is the embedding.
    """

    family: Literal["llama", "mistral", "qwen2", "qwen3"]
    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    max_position: int
    norm_eps: float
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
