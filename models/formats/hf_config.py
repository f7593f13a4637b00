"""Hugging Face's `config.json` to a `DecoderConfig` and back. What we do not implement is an error, never ignored."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.config import DecoderConfig, RopeScaling

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Supported values of `model_type`, and the class that `transformers` loads each with."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32},
    "qwen3": {"num_key_value_heads": 32, "head_dim": 128},
}
"""What `transformers` takes for a field that the file leaves out, where the families differ."""

OWN: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": False, "mlp_bias": False},
    "mistral": {"sliding_window": None},
    "qwen2": {"sliding_window": None},
    "qwen3": {"sliding_window": None, "attention_bias": False},
}
"""Fields that a family's exported config has beside those of all."""

HARMLESS = frozenset({
    "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash",
    "_experts_implementation", "_experts_implementation_internal", "_flash_attn_2_enabled", "_from_model_config",
    "_name_or_path", "attn_implementation", "bos_token_id", "chunk_size_feed_forward", "cls_token_id",
    "decoder_start_token_id", "dtype", "eos_token_id", "experts_implementation", "finetuning_task",
    "gradient_checkpointing", "id2label", "initializer_range", "is_decoder", "is_llama_config", "label2id",
    "loss_type", "mask_token_id", "max_sequence_length", "max_window_layers", "name_or_path", "num_labels",
    "output_attentions", "output_hidden_states", "pad_token_id", "prefix", "problem_type", "return_dict",
    "sep_token_id", "task_specific_params", "tf_legacy_loss", "tie_last_hidden_states", "tokenizer_class",
    "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "unk_token_id",
    "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache", "use_return_dict", "xla_device",
})  # fmt: skip
"""Fields of any transformers generation, and of tools, that change nothing in what these models compute: bookkeeping,
training, what is returned (token ids are read by `models.formats.tokenizer`)."""

GENERATION = frozenset({
    "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind", "bad_words_ids",
    "begin_suppress_tokens", "cache_implementation", "constraints", "diversity_penalty", "do_sample",
    "early_stopping", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff",
    "exponential_decay_length_penalty", "force_words_ids", "forced_bos_token_id", "forced_eos_token_id",
    "guidance_scale", "length_penalty", "low_memory", "max_length", "max_new_tokens", "max_time", "min_length",
    "min_new_tokens", "min_p", "no_repeat_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "num_beam_groups", "num_beams", "num_return_sequences", "output_logits", "output_scores", "penalty_alpha",
    "prompt_lookup_num_tokens", "remove_invalid_values", "renormalize_logits", "repetition_penalty",
    "return_dict_in_generate", "sequence_bias", "stop_strings", "suppress_tokens", "target_lookbehind",
    "temperature", "token_healing", "top_k", "top_p", "typical_p",
})  # fmt: skip
"""Fields by which older transformers draw tokens. Here the experiment's config says how; an export passes them on."""

READ = frozenset({
    "architectures", "head_dim", "hidden_size", "intermediate_size", "layer_types",
    "max_position_embeddings", "model_type", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
    "sliding_window", "tie_word_embeddings", "use_sliding_window", "vocab_size",
})  # fmt: skip
"""Fields that `from_hf` reads."""

ONLY: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "attention_bias": (False, None),
    "attention_dropout": (0, None),
    "cross_attention_hidden_size": (None,),
    "hidden_act": ("silu", "swish"),
    "is_causal": (True, None),
    "is_encoder_decoder": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1, None),
    "per_layer_config": (None, {}),
    "pretraining_tp": (1, None),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "rope_interleaved": (False, None),
    "tie_encoder_decoder": (False, None),
    "transformers_weights": (None,),
    "use_bidirectional_attention": (False, None),
    "use_mrope": (False, None),
}
"""Fields of which only these values are implemented."""


KINDS: dict[str, type] = {
    "model_type": str, "architectures": list, "layer_types": list, "rope_parameters": dict, "rope_scaling": dict
}  # fmt: skip
"""What JSON a field holds that is no number or flag."""

LARGEST_JSON = 1 << 28
"""Bytes; the largest index files have some MB."""

LARGEST = {"num_hidden_layers": 10_000}
"""Bounds of sizes of which lists are made, by field; of all others one is that of 32 bits."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ValueError: the file cannot be read, is no plain file or too large, or is no JSON object.
    """
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise OSError("it is no plain file")  # to read a pipe would be to wait for ever
        if info.st_size > LARGEST_JSON:
            raise OSError(f"it has {info.st_size} bytes, more than {LARGEST_JSON}")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object; download it again")
    return value


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """The architecture that a `config.json` describes, as written by transformers 4 or 5.

    Raises:
      ValueError: a field is missing, unknown or has a value that is not implemented; names field and value.
    """
    for field, kind in KINDS.items():
        if config.get(field) is not None and not isinstance(config[field], kind):
            names = {str: "a text", list: "a list", dict: "an object"}
            raise ValueError(f"config.json: {field} = {_short(config[field])} must be {names[kind]}")
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model_type {family!r} is not supported; supported are {', '.join(FAMILIES)}")
    config = DEFAULTS[family] | dict(config)
    _refuse(family, config)
    heads, width = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    theta, scaling = _rope(config)
    if config.get("head_dim") is None and width % heads:
        raise ValueError(f"hidden_size {width} is not divisible by num_attention_heads {heads}: head_dim must be given")
    made = DecoderConfig(
        family=family,
        vocab_size=_size(config, "vocab_size"),
        width=width,
        layers=_size(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_size(config, "num_key_value_heads", heads),
        head_dim=_size(config, "head_dim", width // heads),
        mlp=_size(config, "intermediate_size"),
        rope_theta=theta,
        rope_scaling=scaling,
        max_position=_size(config, "max_position_embeddings"),
        norm_eps=_number(config, "rms_norm_eps", 1e-6),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        tied=_flag(config, "tie_word_embeddings"),
    )
    if made.heads % made.kv_heads:
        raise ValueError(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {made.kv_heads}")
    if made.head_dim % 2:
        raise ValueError(f"head_dim {made.head_dim} is odd; rotary embeddings need an even one")
    return made


def to_hf(config: DecoderConfig, *, dtype: str = "float32", token_ids: Mapping[str, Any] | None = None) -> dict:
    """The `config.json` of an architecture, readable by transformers 4 and 5; the inverse of `from_hf`.

    Args:
      config: the architecture.
      dtype: dtype of the stored weights, as transformers spells it.
      token_ids: `bos_token_id`, `eos_token_id` and `pad_token_id` to pass through.

    Raises:
      ValueError: biases or q/k norms that the family does not have.
    """
    if config.qkv_bias != (config.family == "qwen2") or config.qk_norm != (config.family == "qwen3"):
        raise ValueError(
            f"family {config.family!r} with qkv_bias={config.qkv_bias} and qk_norm={config.qk_norm} has no Hugging "
            "Face model; biases are qwen2's, q/k norms are qwen3's"
        )
    fields = {
        "architectures": [FAMILIES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        # transformers 5 still reads these two; transformers 4 would not read `rope_parameters`.
        "rope_scaling": _scaling_to_hf(config.rope_scaling),
        "tie_word_embeddings": config.tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "attention_dropout": 0.0,
    }
    return fields | OWN[config.family] | dict(token_ids or {})


def _refuse(family: str, config: dict[str, Any]) -> None:
    """Raises for whatever the file asks for beyond what is implemented."""
    for field, value in config.items():
        if field not in READ | HARMLESS | GENERATION | ONLY.keys():
            raise ValueError(
                f"config.json: unknown field {field!r} (value {value!r}); remove it from the file if the model "
                "computes the same without it"
            )
        if field in ONLY and value not in ONLY[field]:
            allowed = ", ".join(map(repr, ONLY[field]))
            raise ValueError(f"config.json: {field} = {value!r} is not implemented; implemented: {allowed}")
    # A base model's checkpoint names the class without a head, and may hold all that a tied model needs.
    base = FAMILIES[family].replace("ForCausalLM", "Model")
    if config.get("architectures") not in (None, [], [FAMILIES[family]], [base]):
        raise ValueError(
            f"config.json: architectures = {config['architectures']!r} is not implemented; implemented for "
            f"{family}: {FAMILIES[family]} and {base}"
        )
    _refuse_windows(family, config)


def _refuse_windows(family: str, config: dict[str, Any]) -> None:
    """Raises if any layer attends to less than everything before it."""
    window, switch = config.get("sliding_window"), config.get("use_sliding_window")
    if switch:
        raise ValueError(f"config.json: use_sliding_window = {switch!r} is not implemented; implemented: False")
    if family not in ("qwen2", "qwen3") and window is not None:
        raise ValueError(f"config.json: sliding_window = {window!r} is not implemented; implemented: None")
    kinds = [kind for kind in config.get("layer_types") or () if kind != "full_attention"]
    if kinds:
        raise ValueError(
            f"config.json: layer_types has {_short(kinds[0])}, not implemented; implemented: full_attention"
        )


def _rope(config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary embedding, from either generation's fields."""
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    if new and old and {**old, "rope_theta": 0} != {**new, "rope_theta": 0}:
        raise ValueError(f"config.json: rope_parameters = {new!r} and rope_scaling = {old!r} disagree; remove one")
    field, rope = ("rope_parameters", dict(new)) if new else ("rope_scaling", dict(old or {}))
    kind = rope.pop("rope_type", None) or rope.get("type") or "default"
    rope.pop("type", None)
    theta = rope.pop("rope_theta", config.get("rope_theta"))
    theta = 10_000.0 if theta is None else _number({"rope_theta": theta}, "rope_theta")
    if rope.get("partial_rotary_factor") in (1, None):
        rope.pop("partial_rotary_factor", None)
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    expected = {"default": (), "llama3": names}.get(str(kind))
    if expected is None:
        raise ValueError(f"config.json: {field} has rope_type {kind!r}, not implemented; implemented: default, llama3")
    unknown = sorted(set(rope) - set(expected))
    if unknown:
        raise ValueError(f"config.json: {field}.{unknown[0]} = {rope[unknown[0]]!r} is not implemented for {kind!r}")
    if kind == "default":
        return theta, None
    rope.setdefault(names[3], config.get("max_position_embeddings"))
    factor, low, high = (_number(rope, name) for name in names[:3])
    if high <= low:
        raise ValueError(f"config.json: {field}.high_freq_factor {high} must be above low_freq_factor {low}")
    scaling = RopeScaling(
        factor=factor, low_freq_factor=low, high_freq_factor=high, original_max_position=_size(rope, names[3])
    )
    return theta, scaling


def _scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position,
    }


def _size(config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    value = config.get(field)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"config.json: {field} = {_short(value)} must be a positive whole number")
    largest = LARGEST.get(field, 2**31 - 1)
    if value > largest:
        raise ValueError(f"config.json: {field} = {_short(value)} is not implemented; at most {largest}")
    return value


def _number(config: Mapping[str, Any], field: str, default: float | None = None) -> float:
    value = config.get(field)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        raise ValueError(f"config.json: {field} = {_short(value)} must be a positive number")
    return float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."


def _flag(config: Mapping[str, Any], field: str) -> bool:
    value = config.get(field)
    if value not in (None, False, True):
        raise ValueError(f"config.json: {field} = {value!r} must be true or false")
    return bool(value)
