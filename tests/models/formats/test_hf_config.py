"""config.json of both transformers generations to our architecture and back, and everything that is refused."""

import json
import os
from dataclasses import replace

import pytest

from models.config import DecoderConfig, RopeScaling
from models.formats.hf_config import READ, from_hf, read_json, to_hf
from models.presets import PRESETS

# As transformers 4 wrote Llama 3.2's.
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
SCALING = RopeScaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192)
# As transformers 4 wrote Qwen2.5's.
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3 = QWEN2 | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": False}
MISTRAL = QWEN2 | {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": None}


def without(config, *fields):
    return {name: value for name, value in config.items() if name not in fields}


def test_llama_of_transformers_4():
    assert from_hf(LLAMA) == DecoderConfig(
        family="llama",
        vocab_size=128256,
        width=2048,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        mlp=8192,
        rope_theta=500_000.0,
        rope_scaling=SCALING,
        max_position=131072,
        norm_eps=1e-5,
        tied=True,
    )


def test_transformers_5_spells_rope_differently():
    rope = {**LLAMA["rope_scaling"], "rope_theta": 500000.0}
    assert from_hf(without(LLAMA, "rope_scaling", "rope_theta") | {"rope_parameters": rope}) == from_hf(LLAMA)
    plain = from_hf(without(QWEN2, "rope_theta") | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})
    assert plain == from_hf(QWEN2) == PRESETS["qwen2.5-0.5b"]


def test_families_differ_where_they_should():
    qwen2, qwen3, mistral = from_hf(QWEN2), from_hf(QWEN3), from_hf(MISTRAL)
    assert (qwen2.qkv_bias, qwen2.qk_norm, qwen2.head_dim) == (True, False, 64)
    assert (qwen3.qkv_bias, qwen3.qk_norm, qwen3.head_dim) == (False, True, 128)
    assert (mistral.qkv_bias, mistral.qk_norm, mistral.head_dim) == (False, False, 64)


def test_fields_left_out_mean_what_transformers_takes_them_for():
    bare = from_hf(
        without(LLAMA, "head_dim", "num_key_value_heads", "tie_word_embeddings", "rope_theta", "rope_scaling")
        | {"rms_norm_eps": None}
    )
    assert (bare.head_dim, bare.kv_heads, bare.tied, bare.rope_theta, bare.norm_eps) == (64, 32, False, 1e4, 1e-6)
    assert from_hf(LLAMA | {"head_dim": None, "num_key_value_heads": None}).kv_heads == 32
    assert from_hf(without(MISTRAL, "num_key_value_heads") | {"num_attention_heads": 16}).kv_heads == 8
    short = {name: value for name, value in LLAMA["rope_scaling"].items() if not name.startswith("original")}
    assert from_hf(LLAMA | {"rope_scaling": short}).rope_scaling == replace(SCALING, original_max_position=131072)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LLAMA | {"model_type": "gemma2"}, "model_type 'gemma2' is not supported; supported are llama, mistral, qwen2"),
        ({"hidden_size": 8}, "model_type None"),
        (LLAMA | {"attention_bias": True}, "attention_bias = True is not implemented"),
        (QWEN3 | {"attention_bias": True}, "attention_bias = True"),
        (LLAMA | {"mlp_bias": True}, "mlp_bias = True"),
        (QWEN3 | {"is_causal": False}, "is_causal = False is not implemented; implemented: True"),
        (QWEN3 | {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        (LLAMA | {"transformers_weights": "other.safetensors"}, "transformers_weights = 'other.safetensors'"),
        (LLAMA | {"is_encoder_decoder": True}, "is_encoder_decoder = True"),
        (LLAMA | {"pruned_heads": {"0": [1]}}, "pruned_heads = "),
        (LLAMA | {"architectures": ["MistralModel"]}, "architectures = "),
        (LLAMA | {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not implemented; implemented: 'silu'"),
        (LLAMA | {"pretraining_tp": 2}, "pretraining_tp = 2"),
        (LLAMA | {"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        (LLAMA | {"rope_interleaved": True}, "rope_interleaved = True"),
        (LLAMA | {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        (LLAMA | {"architectures": ["LlamaForSequenceClassification"]}, "architectures = "),
        (LLAMA | {"attention_multiplier": 2.0}, "unknown field 'attention_multiplier' \\(value 2.0\\)"),
        (LLAMA | {"auto_map": {}}, "unknown field 'auto_map'"),
        (MISTRAL | {"sliding_window": 4096}, "sliding_window = 4096"),
        (without(MISTRAL, "sliding_window"), "sliding_window = 4096"),
        (QWEN2 | {"use_sliding_window": True}, "use_sliding_window = True"),
        (QWEN3 | {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has \\['sliding_attention'\\]"),
        (QWEN2 | {"use_mrope": True}, "use_mrope = True"),
        (QWEN2 | {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling has rope_type 'yarn'"),
        (QWEN2 | {"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling has rope_type 'linear'"),
        (QWEN2 | {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, "has rope_type 'dynamic'"),
        (QWEN2 | {"rope_scaling": {"rope_type": "default", "mrope_section": [1]}}, "rope_scaling.mrope_section"),
        (QWEN2 | {"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "low_freq_factor = None must be"),
        (QWEN2 | {"rope_parameters": {"full_attention": {}}}, "rope_parameters.full_attention"),
        (QWEN2 | {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        (without(LLAMA, "vocab_size"), "vocab_size = None must be a positive whole number"),
        (LLAMA | {"hidden_size": "2048"}, "hidden_size = '2048' must be"),
        (LLAMA | {"num_attention_heads": 30, "head_dim": None}, "hidden_size 2048 is not divisible by"),
        (LLAMA | {"num_key_value_heads": 5}, "num_attention_heads 32 is not a multiple of num_key_value_heads 5"),
        (LLAMA | {"head_dim": 63}, "head_dim 63 is odd"),
        (LLAMA | {"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes'"),
    ],
)  # fmt: skip
def test_what_is_not_implemented_is_refused_by_name(config, message):
    with pytest.raises(ValueError, match=message) as error:
        from_hf(config)
    assert "\n" not in str(error.value)


# What `PretrainedConfig.to_dict` of transformers 4.0 to 4.57 wrote beside an architecture's own fields.
OLDER = {
    "_commit_hash": None, "_name_or_path": "some/model", "add_cross_attention": False, "bad_words_ids": None,
    "begin_suppress_tokens": None, "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None,
    "decoder_start_token_id": None, "diversity_penalty": 0.0, "do_sample": True, "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": None, "finetuning_task": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": True, "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0, "max_length": 4096, "min_length": 0,
    "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1,
    "output_attentions": False, "output_hidden_states": False, "output_scores": False, "prefix": None,
    "problem_type": None, "pruned_heads": {}, "remove_invalid_values": False, "repetition_penalty": 1.1,
    "return_dict": True, "return_dict_in_generate": False, "sep_token_id": 7, "suppress_tokens": None,
    "task_specific_params": None, "temperature": 0.6, "tf_legacy_loss": False, "tie_encoder_decoder": False,
    "tokenizer_class": "LlamaTokenizer", "top_k": 50, "top_p": 0.9, "torchscript": True, "typical_p": 1.0,
    "use_bfloat16": False, "xla_device": None,
}  # fmt: skip


@pytest.mark.parametrize("config", [LLAMA, QWEN2, QWEN3, MISTRAL], ids=lambda c: c["model_type"])
def test_fields_that_change_nothing_in_the_model_are_accepted(config):
    assert from_hf(config | OLDER) == from_hf(config)


def test_what_transformers_itself_writes_is_accepted():
    """Every field of generation that it once kept in configs, and every one that its base class has now."""
    from transformers import GenerationConfig, PreTrainedConfig

    names = {*GenerationConfig._get_default_generation_params(), *PreTrainedConfig().to_dict()} - {"model_type"}
    assert {"temperature", "max_length", "top_k", "suppress_tokens"} <= names
    written = {**PreTrainedConfig().to_dict(), **GenerationConfig._get_default_generation_params()}
    assert from_hf({name: written[name] for name in names} | LLAMA) == from_hf(LLAMA)


@pytest.mark.parametrize(("config", "base"), [(LLAMA, "LlamaModel"), (QWEN2, "Qwen2Model"), (MISTRAL, "MistralModel")])
def test_a_base_models_class_is_accepted(config, base):
    assert from_hf(config | {"architectures": [base], "hidden_act": "swish"}) == from_hf(config)


@pytest.mark.parametrize("config", [LLAMA, QWEN2, QWEN3, MISTRAL], ids=lambda c: c["model_type"])
def test_export_reads_back_here_and_in_transformers(config, tmp_path):
    from transformers import AutoConfig

    ours = from_hf(config)
    written = to_hf(ours, dtype="bfloat16", token_ids={"eos_token_id": [7, 8], "bos_token_id": 1})
    assert from_hf(written) == ours
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs = AutoConfig.from_pretrained(tmp_path)
    rope = theirs.rope_parameters
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.architectures) == ([7, 8], 1, config["architectures"])
    assert (theirs.head_dim, theirs.num_key_value_heads) == (ours.head_dim, ours.kv_heads)
    assert (theirs.rms_norm_eps, theirs.tie_word_embeddings) == (ours.norm_eps, ours.tied)
    assert rope["rope_theta"] == ours.rope_theta and getattr(theirs, "sliding_window", None) is None
    assert rope.get("factor") == (32.0 if ours.rope_scaling else None)
    assert from_hf(theirs.to_dict()) == ours


def test_export_of_a_mixture_of_families_is_refused():
    with pytest.raises(ValueError, match="family 'llama' with qkv_bias=True"):
        to_hf(DecoderConfig(**{**vars(from_hf(LLAMA)), "qkv_bias": True}))


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": '])
def test_a_broken_json_file_is_one_line(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json .*download it again") as error:
        read_json(tmp_path / "config.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [[], {}, "text", 3, True, [[]], {"a": []}, 1e400, -1, 10**400, "x" * 1000, [None]])
@pytest.mark.parametrize("field", [*sorted(READ), "hidden_act", "attention_dropout", "quantization_config"])
def test_json_of_the_wrong_shape_is_one_short_line_that_names_the_field(field, value):
    try:
        from_hf(LLAMA | {field: value})
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500
        assert field in str(error) or "num_attention_heads" in str(error) or "head_dim" in str(error)


def test_sizes_of_which_lists_are_made_are_bounded():
    with pytest.raises(ValueError, match="num_hidden_layers = 1000000000000 is not implemented; at most 10000"):
        from_hf(LLAMA | {"num_hidden_layers": 10**12})
    with pytest.raises(ValueError, match="vocab_size = 1000000000000 is not implemented; at most 2147483647"):
        from_hf(LLAMA | {"vocab_size": 10**12})


def test_a_pipe_or_a_nest_of_lists_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name in ("pipe", "deep"):
        with pytest.raises(ValueError, match=rf"{name}\.json cannot be read as JSON"):
            read_json(tmp_path / f"{name}.json")
