"""A GGUF file of the Llama family as a Hugging Face model directory: weights, configs and tokenizer, without torch."""

from pathlib import Path
from typing import Any

import numpy as np

from models.config import DecoderConfig
from models.formats.gguf_bounds import check_bounds
from models.formats.hf_config import to_hf
from models.formats.storage import whole_directory, write_checksums, write_json, write_tensors
from models.formats.tokenizer import quiet_transformers, save_tokenizer
from models.formats.weights import abstract, leaves

NAMES = {
    "embed": "token_embd.weight",
    "norm": "output_norm.weight",
    "head": "output.weight",
    "layers.attention_norm": "blk.{}.attn_norm.weight",
    "layers.query": "blk.{}.attn_q.weight",
    "layers.key": "blk.{}.attn_k.weight",
    "layers.value": "blk.{}.attn_v.weight",
    "layers.out": "blk.{}.attn_output.weight",
    "layers.mlp_norm": "blk.{}.ffn_norm.weight",
    "layers.gate": "blk.{}.ffn_gate.weight",
    "layers.up": "blk.{}.ffn_up.weight",
    "layers.down": "blk.{}.ffn_down.weight",
}
"""Our parameter's path: the GGUF tensor's name."""

ARCHITECTURE = frozenset({
    "attention.head_count", "attention.head_count_kv", "attention.key_length",
    "attention.layer_norm_rms_epsilon", "attention.value_length", "block_count", "context_length",
    "embedding_length", "feed_forward_length", "rope.dimension_count", "rope.freq_base", "vocab_size",
})  # fmt: skip
"""Metadata `llama.*` that is understood; any other such key is an error."""

TOKENIZER = {
    "model": ("gpt2",),
    "pre": ("smollm",),
    "add_space_prefix": (None, False),
    "add_bos_token": (None, False),
    "add_eos_token": (None, False),
}
"""Metadata `tokenizer.ggml.*` that decides how text is cut, and the values implemented (None: absent)."""

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Values of `tokenizer.ggml.token_type`: ordinary tokens, special ones, and ones that are text but never cut."""


def convert(file: Path, directory: Path) -> None:
    """Writes the model directory of a GGUF file, float32; it appears whole or not at all.

    If another process makes the same directory meanwhile, the first one stays.

    Raises:
      ValueError: the file is corrupt or truncated, or its architecture, tokenizer or a tensor is not implemented.
    """
    try:
        _convert(file, directory)
    except (ValueError, OSError):
        raise
    # Neither the reader nor the tokenizers check what they read: damage surfaces as any kind of exception.
    except Exception as error:
        raise ValueError(f"{file} is corrupt or truncated ({error!r:.200}); delete it and download it again") from None


def _convert(file: Path, directory: Path) -> None:
    check_bounds(file)
    reader = _open(file)
    metadata = _metadata(file, reader)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(file, metadata, tied="output.weight" not in tensors)
    places = _places(file, config, tensors)
    tokenizer = _tokenizer(file, metadata, config)
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    with whole_directory(directory, replace=False) as partial:
        shapes = {name: shape for name, (_, shape, _) in places.items()}
        write_tensors(partial, shapes, lambda name: _values(file, tensors[places[name][0]], places[name][2]))
        write_json(partial / "config.json", to_hf(config, token_ids=ids))
        write_json(partial / "generation_config.json", ids)
        save_tokenizer(tokenizer, partial)
        write_checksums(partial)


def _open(file: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    # The reader does not check what it reads: damage surfaces as any kind of exception.
    except Exception as error:
        raise ValueError(f"{file} is corrupt or truncated ({error}); delete it and download it again") from None


def _metadata(file: Path, reader: Any) -> dict[str, Any]:
    """All key-value pairs, with the keys that we cannot honor refused."""
    try:
        found = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError) as error:
        raise ValueError(f"{file} is corrupt or truncated ({error}); delete it and download it again") from None
    architecture = found.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"{file}: architecture {architecture!r} is not supported; supported is llama")
    for name, value in found.items():
        if name.startswith("llama.") and name.removeprefix("llama.") not in ARCHITECTURE:
            raise ValueError(f"{file}: metadata {name} = {value!r} is not implemented")
    for name, allowed in TOKENIZER.items():
        value = found.get(f"tokenizer.ggml.{name}")
        if value not in allowed:
            raise ValueError(
                f"{file}: metadata tokenizer.ggml.{name} = {value!r} is not implemented; implemented: "
                + ", ".join(map(repr, allowed))
            )
    return found


def _get(file: Path, metadata: dict[str, Any], name: str) -> Any:
    if name not in metadata:
        raise ValueError(f"{file}: metadata {name} is missing; use another conversion of the model")
    return metadata[name]


def _config(file: Path, metadata: dict[str, Any], *, tied: bool) -> DecoderConfig:
    """The architecture that the metadata describes."""
    for name in ARCHITECTURE:
        value = metadata.get(f"llama.{name}", 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
            raise ValueError(f"{file}: metadata llama.{name} = {value!r:.80} must be a positive number")
        if value > 10_000 and name == "block_count":
            raise ValueError(f"{file}: metadata llama.{name} = {value!r} is not implemented; at most 10000")
    get = lambda name: _get(file, metadata, f"llama.{name}")
    heads, width = get("attention.head_count"), get("embedding_length")
    head_dim = metadata.get("llama.attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if metadata.get(f"llama.{name}", head_dim) != head_dim:
            raise ValueError(f"{file}: metadata llama.{name} = {get(name)} is not implemented for heads of {head_dim}")
    return DecoderConfig(
        family="llama",
        vocab_size=len(_get(file, metadata, "tokenizer.ggml.tokens")),
        width=width,
        layers=get("block_count"),
        heads=heads,
        kv_heads=metadata.get("llama.attention.head_count_kv", heads),
        head_dim=head_dim,
        mlp=get("feed_forward_length"),
        rope_theta=_decimal(metadata.get("llama.rope.freq_base", 10_000.0)),
        max_position=get("context_length"),
        norm_eps=_decimal(get("attention.layer_norm_rms_epsilon")),
        tied=tied,
    )


def _decimal(value: float) -> float:
    """The shortest decimal that is this float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _places(
    file: Path, config: DecoderConfig, tensors: dict[str, Any]
) -> dict[str, tuple[str, tuple[int, ...], int | None]]:
    """For every tensor to write: the GGUF tensor it comes from, its shape, and the heads whose rows are interleaved."""
    places = {}
    for leaf in leaves(abstract(config)):
        heads = leaf.sizes[leaf.stored[0][0]] if leaf.path in ("layers.query", "layers.key") else None
        for i, name in enumerate(leaf.names):
            places[name] = (NAMES[leaf.path].format(i), leaf.stored_shape, heads)
    for source, shape, _ in places.values():
        if source not in tensors:
            raise ValueError(f"{file}: tensor {source} {shape} is missing; use another conversion of the model")
        actual = tuple(reversed(tensors[source].shape.tolist()))
        if actual != shape:
            raise ValueError(f"{file}: tensor {source} has shape {actual}, the metadata asks for {shape}")
    extra = sorted(set(tensors) - {source for source, _, _ in places.values()})
    if extra:
        raise ValueError(f"{file}: tensor {extra[0]} is not implemented; use another conversion of the model")
    return places


def _values(file: Path, tensor: Any, heads: int | None) -> np.ndarray:
    """A tensor as float32, with the rows of each head in Hugging Face's order if `heads` is given."""
    from gguf.quants import dequantize

    try:
        values = dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
        kind = tensor.tensor_type.name
        raise ValueError(
            f"{file}: tensor {tensor.name} is quantized as {kind}, which cannot be read; use one as F16 or Q8_0"
        ) from None
    if heads is None:
        return values
    # llama.cpp keeps the two channels of a rotary pair side by side; Hugging Face keeps them half a head apart.
    return values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def _tokenizer(file: Path, metadata: dict[str, Any], config: DecoderConfig) -> Any:
    """The `transformers` tokenizer that the metadata describes: byte-level BPE, digits split one by one."""
    with quiet_transformers():
        from transformers import PreTrainedTokenizerFast
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    get = lambda name: _get(file, metadata, f"tokenizer.ggml.{name}")
    tokens, kinds = get("tokens"), get("token_type")
    merges = [tuple(merge.split(" ")) for merge in get("merges")]
    if len(set(tokens)) != len(tokens) or len(kinds) != len(tokens) or any(len(merge) != 2 for merge in merges):
        raise ValueError(f"{file}: its tokens, token types and merges do not fit together; download it again")
    unknown = set(kinds) - {NORMAL, CONTROL, USER_DEFINED}
    if unknown:
        raise ValueError(f"{file}: token types {sorted(unknown)} in tokenizer.ggml.token_type are not implemented")
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [
        AddedToken(t, normalized=False, special=True) for t, k in zip(tokens, kinds, strict=True) if k == CONTROL
    ]
    whole = [AddedToken(t, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == USER_DEFINED]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(whole)
    ids = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named = {
        f"{kind}_token": tokens[metadata[f"tokenizer.ggml.{name}_token_id"]]
        for kind, name in ids.items()
        if f"tokenizer.ggml.{name}_token_id" in metadata
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.max_position,
        chat_template=metadata.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **named,
    )
