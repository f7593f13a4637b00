"""Model directories as other tools leave them: every number arrives, and what would load wrongly is an error by name.

What is right is what transformers 5.23 does with the same files, as its source says.
"""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.formats.load import find, load, read_config
from models.formats.tokenizer import byte_tokenizer, save_tokenizer
from models.formats.weights import export, load_weights

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = ("llama_tied", "llama3_scaled", "qwen2", "qwen3", "mistral")
INDEX = "model.safetensors.index.json"
EMBED, HEAD, DOWN = "model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.down_proj.weight"

pytestmark = pytest.mark.usefixtures("quick_compile")


def stored(name):
    """All tensors of a golden model."""
    return {key: value for file in (GOLDEN / name).glob("*.safetensors") for key, value in load_file(file).items()}


def directory_of(path, name, tensors=None, **fields):
    """A golden model's directory with other tensors, in one file, and other fields in its config."""
    path.mkdir()
    config = json.loads((GOLDEN / name / "config.json").read_text()) | fields
    (path / "config.json").write_text(json.dumps(config))
    save_file(stored(name) if tensors is None else tensors, path / "model.safetensors")
    return path


def read(directory):
    return load_weights(directory, read_config(directory), remat="none")


def as_stored(policy):
    """The policy's numbers under Hugging Face's names and in its layout, written out weight by weight."""
    c, at = policy.config, lambda param: np.asarray(param[...])
    tensors = {EMBED: at(policy.embed), "model.norm.weight": at(policy.norm)}
    if not c.tied:
        tensors[HEAD] = at(policy.head).T
    layers, rows = policy.layers, lambda x: x.reshape(-1, c.width)
    for i in range(c.layers):
        layer = {
            "input_layernorm.weight": at(layers.attention_norm)[i],
            "post_attention_layernorm.weight": at(layers.mlp_norm)[i],
            "self_attn.q_proj.weight": rows(at(layers.query)[i].transpose(1, 2, 0)),
            "self_attn.k_proj.weight": rows(at(layers.key)[i].transpose(1, 2, 0)),
            "self_attn.v_proj.weight": rows(at(layers.value)[i].transpose(1, 2, 0)),
            "self_attn.o_proj.weight": at(layers.out)[i].reshape(-1, c.width).T,
            "mlp.gate_proj.weight": at(layers.gate)[i].T,
            "mlp.up_proj.weight": at(layers.up)[i].T,
            "mlp.down_proj.weight": at(layers.down)[i].T,
        }
        if c.qkv_bias:
            biases = {"q": layers.query_bias, "k": layers.key_bias, "v": layers.value_bias}
            layer |= {f"self_attn.{x}_proj.bias": at(bias)[i].reshape(-1) for x, bias in biases.items()}
        if c.qk_norm:
            norms = {"q": layers.query_norm, "k": layers.key_norm}
            layer |= {f"self_attn.{x}_norm.weight": at(norm)[i] for x, norm in norms.items()}
        tensors |= {f"model.layers.{i}.{part}": value for part, value in layer.items()}
    return tensors


def assert_holds(policy, tensors):
    """The policy's numbers are the tensors', bit by bit."""
    found = as_stored(policy)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == np.float32 and found[name].shape == value.shape, name
        mine, theirs = (np.ascontiguousarray(x, np.float32).view(np.int32) for x in (found[name], value))
        np.testing.assert_array_equal(mine, theirs, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_the_files_arrives(name, dtype, tmp_path):
    rng = np.random.default_rng(0)
    tensors = {key: rng.normal(size=value.shape).astype(dtype) for key, value in stored(name).items()}
    for value in tensors.values():
        info = ml_dtypes.finfo(dtype)
        value.flat[:5] = -0.0, info.max, -info.max, info.smallest_subnormal, info.tiny
    assert_holds(read(directory_of(tmp_path / "model", name, tensors)), tensors)


def test_tensors_of_several_dtypes_arrive(tmp_path):
    tensors = stored("qwen2")
    kinds = (np.float32, ml_dtypes.bfloat16, np.float16)
    tensors = {key: value.astype(kinds[i % 3]) for i, (key, value) in enumerate(tensors.items())}
    assert_holds(read(directory_of(tmp_path / "model", "qwen2", tensors)), tensors)


def in_shards(directory, tensors, places):
    """Writes tensors into the files that `places` names, with an index that says so."""
    for file in sorted(set(places.values())):
        save_file({name: tensors[name] for name, place in places.items() if place == file}, directory / file)
    (directory / INDEX).write_text(json.dumps({"weight_map": places}))


def test_one_file_goes_before_an_index_beside_it(tmp_path):
    new, old = stored("qwen2"), {name: value + 1 for name, value in stored("qwen2").items()}
    path = directory_of(tmp_path / "model", "qwen2", new)
    in_shards(path, old, {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(old)})
    assert_holds(read(path), new)
    (path / "model.safetensors").unlink()
    assert_holds(read(path), old)
    save_file(new, path / "model.safetensors")
    (path / INDEX).write_text("{}")
    assert_holds(read(path), new)


def test_a_shard_without_a_tensor_that_the_index_says_is_there_is_named(tmp_path):
    tensors, (first, second) = stored("qwen2"), [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    places = {name: second if "layers.1" in name else first for name in tensors}
    path = directory_of(tmp_path / "model", "qwen2")
    (path / "model.safetensors").unlink()
    in_shards(path, tensors, places)
    save_file({name: tensors[name] for name in places if places[name] == second and name != DOWN}, path / second)
    with pytest.raises(ValueError, match=rf"tensor {DOWN} \(32, 40\) is missing from {second}, where the index says"):
        read(path)
    # As in transformers it may be in another one of the files.
    save_file({name: tensors[name] for name in places if places[name] == first} | {DOWN: tensors[DOWN]}, path / first)
    assert_holds(read(path), tensors)


@pytest.mark.parametrize("name", ["llama_tied", "qwen3"])
def test_the_base_models_prefix_may_be_absent_or_there_twice(name, tmp_path):
    tensors = stored(name)
    base = directory_of(
        tmp_path / "base", name, {key.removeprefix("model."): value for key, value in tensors.items()},
        architectures=[{"llama_tied": "LlamaModel", "qwen3": "Qwen3Model"}[name]],
    )  # fmt: skip
    assert_holds(read(base), tensors)
    twice = directory_of(tmp_path / "twice", name, {f"model.{key}": value for key, value in tensors.items()})
    assert_holds(read(twice), tensors)


def test_a_base_model_that_lacks_its_head_is_refused(tmp_path):
    tensors = {key.removeprefix("model."): value for key, value in stored("qwen3").items() if key != HEAD}
    path = directory_of(tmp_path / "model", "qwen3", tensors, architectures=["Qwen3Model"])
    with pytest.raises(ValueError, match=r"tensor lm_head\.weight \(56, 32\) is missing"):
        read(path)


def test_a_tensor_under_two_names_is_refused(tmp_path):
    tensors = stored("qwen2") | {"norm.weight": np.ones(32, np.float32)}
    path = directory_of(tmp_path / "model", "qwen2", tensors)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: tensor (model\.)?norm\.weight is there as (model\.)?norm"
    ):
        read(path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "language_model.", "base_model.model."])
def test_other_wrappers_are_refused_as_nothing_of_them_would_load_in_transformers(prefix, tmp_path):
    path = directory_of(
        tmp_path / "model", "qwen2", {f"{prefix}{key}": value for key, value in stored("qwen2").items()}
    )
    with pytest.raises(ValueError, match=r"tensor model\.embed_tokens\.weight \(56, 32\) is missing"):
        read(path)


def test_a_tied_head_is_the_embedding_or_an_error(tmp_path):
    tensors = stored("llama_tied")
    same = directory_of(tmp_path / "same", "llama_tied", tensors | {HEAD: tensors[EMBED].copy()})
    assert_holds(read(same), tensors)
    # safetensors' own `save_model` keeps the alphabetically first of two names.
    first = directory_of(
        tmp_path / "first", "llama_tied",
        {HEAD if name == EMBED else name: value for name, value in tensors.items()},
    )  # fmt: skip
    assert_holds(read(first), tensors)
    for place in (0, -1):
        other = tensors[EMBED].copy()
        other.flat[place] = np.nextafter(other.flat[place], np.float32(9))
        path = directory_of(tmp_path / f"other{place}", "llama_tied", tensors | {HEAD: other})
        with pytest.raises(
            ValueError,
            match=r"model\.safetensors: tensor lm_head\.weight differs from model\.embed_tokens\.weight alth",
        ) as error:
            read(path)
        assert "\n" not in str(error.value) and "tie_word_embeddings = true; set that to false" in str(error.value)
        config = json.loads((path / "config.json").read_text()) | {"tie_word_embeddings": False}
        (path / "config.json").write_text(json.dumps(config))
        assert_holds(read(path), tensors | {HEAD: other})
    larger = directory_of(tmp_path / "larger", "llama_tied", tensors | {HEAD: np.zeros((57, 32), np.float32)})
    with pytest.raises(ValueError, match=r"tensor lm_head\.weight differs"):
        read(larger)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_named(dtype, value, tmp_path):
    tensors = {key: array.astype(dtype) for key, array in stored("qwen3").items()}
    for number, (name, place) in enumerate(((EMBED, 0), (DOWN, -1), ("model.norm.weight", 7), (HEAD, 5))):
        broken = tensors | {name: tensors[name].copy()}
        broken[name].flat[place] = value
        path = directory_of(tmp_path / str(number), "qwen3", broken)
        with pytest.raises(
            ValueError, match=rf"model\.safetensors: tensor {name} holds numbers that are NaN or"
        ) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_infinities_that_cancel_and_sums_that_overflow_are_told_apart(tmp_path):
    tensors = stored("qwen3")
    tensors[DOWN] = np.full((32, 40), np.float32(3e38))
    assert_holds(read(directory_of(tmp_path / "large", "qwen3", tensors)), tensors)
    tensors[DOWN].flat[:2] = np.inf, -np.inf
    with pytest.raises(ValueError, match=f"tensor {DOWN} holds"):
        read(directory_of(tmp_path / "cancel", "qwen3", tensors))


def test_every_device_looks_at_its_own_part_of_a_shard(make_layout, tmp_path):
    tensors = stored("llama3_scaled")
    tensors["model.layers.0.mlp.gate_proj.weight"][39, 31] = np.nan
    path = directory_of(tmp_path / "model", "llama3_scaled", tensors)
    with pytest.raises(ValueError, match=r"tensor model\.layers\.0\.mlp\.gate_proj\.weight holds numbers"):
        load_weights(path, read_config(path), shardings=make_layout("4x2").train_shardings, remat="none")


def with_tokenizer(path, vocabulary, **fields):
    """A model with so many rows in its embedding, and the tokenizer of bytes, whose ids are 0 to 258."""
    tensors = {
        name: np.zeros((vocabulary, 32), np.float32) if name in (EMBED, HEAD) else value
        for name, value in stored("llama_tied").items()
    }
    directory_of(path, "llama_tied", tensors, vocab_size=vocabulary, **fields)
    save_tokenizer(byte_tokenizer(), path)
    return path


def test_ids_that_the_embedding_does_not_have_are_named(tmp_path):
    assert find(str(with_tokenizer(tmp_path / "fits", 259))).config.vocab_size == 259
    assert load(str(with_tokenizer(tmp_path / "padded", 300))).policy.embed[...].shape == (300, 32)
    path = with_tokenizer(tmp_path / "short", 258)
    with pytest.raises(
        ValueError, match=r"short: token 258 \(<pad>\) is not in the embedding of 258 rows; give .*resize_token_emb"
    ) as error:
        find(str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"token 257 \(<eos>\) and 1 more is not in the embedding of 257 rows"):
        find(str(with_tokenizer(tmp_path / "shorter", 257)))


def test_tokens_added_to_the_tokenizer_alone_are_named(tmp_path):
    path = with_tokenizer(tmp_path / "model", 259)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<think>"])
    save_tokenizer(tokenizer, path)
    with pytest.raises(ValueError, match=r"token 259 \(<think>\) is not in the embedding of 259 rows"):
        find(str(path))


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_stop_ids_that_no_token_has_are_named(file, tmp_path):
    path = with_tokenizer(tmp_path / "model", 300)
    known = json.loads((path / "config.json").read_text()) if file == "config.json" else {}
    write = lambda ids: (path / file).write_text(json.dumps(known | {"eos_token_id": ids}))
    write([299])
    assert 299 in find(str(path)).stop_ids
    write([257, 300])
    with pytest.raises(ValueError, match=r"token 300 \(a stop id\) is not in the embedding of 300 rows"):
        find(str(path))
    for ids in (-1, [257, -1], "</s>", [257, None], True, 2.5):
        write(ids)
        # Some of these in a config.json transformers refuses before us, when it loads the tokenizer.
        with pytest.raises(ValueError, match=rf"{file}: eos_token_id = .* names no token; correct it|'eos_token_id'"):
            find(str(path))


def test_an_adapter_beside_a_model_is_not_passed_over(tmp_path):
    path = directory_of(tmp_path / "model", "qwen2")
    (path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"adapter_config\.json is an adapter's, .*merge it into the model"):
        read_config(path)


@pytest.mark.parametrize(
    ("fields", "dtype", "expected"),
    [
        ({"dtype": "bfloat16"}, np.float32, "bfloat16"),
        ({"torch_dtype": "float16"}, np.float32, "float16"),
        ({"dtype": "float32", "torch_dtype": "bfloat16"}, np.float32, "float32"),  # transformers 5 reads the first
        ({"dtype": None}, ml_dtypes.bfloat16, "bfloat16"),  # nothing said: what the tensors have
        ({"dtype": None}, np.float16, "float16"),
        ({"dtype": "float64"}, np.float32, "float32"),
    ],
)
def test_auto_exports_in_the_dtype_that_the_source_has(fields, dtype, expected, tmp_path):
    tensors = {name: value.astype(dtype) for name, value in stored("qwen2").items()}
    config = {"dtype": None, "torch_dtype": None} | fields
    path = directory_of(tmp_path / "source", "qwen2", tensors, **config)
    export(read(path), tmp_path / "out", tokenizer=byte_tokenizer(), source=path, dtype="auto")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert {str(value.dtype) for value in written.values()} == {expected}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == expected
    for name, value in tensors.items():
        np.testing.assert_array_equal(written[name], value.astype(expected), err_msg=name)


def test_a_model_without_files_is_exported_in_float32(tmp_path):
    export(read(GOLDEN / "mistral"), tmp_path / "out", tokenizer=byte_tokenizer(), dtype="auto")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float32"


def test_numbers_too_large_for_float16_are_not_exported_as_infinite(tmp_path):
    tensors = stored("qwen2")
    tensors[DOWN][3, 4] = 65520.0  # the first that rounds to infinity
    path = directory_of(tmp_path / "source", "qwen2", tensors)
    with pytest.raises(
        ValueError, match=rf"tensor {DOWN} has numbers beyond float16's; write it as bfloat16 or float32"
    ):
        export(read(path), tmp_path / "out", tokenizer=byte_tokenizer(), dtype="float16")
    assert not (tmp_path / "out").exists()
    tensors[DOWN][3, 4] = 65519.0
    shutil.rmtree(path)
    export(read(directory_of(path, "qwen2", tensors)), tmp_path / "out", tokenizer=byte_tokenizer(), dtype="float16")
    assert load_file(tmp_path / "out" / "model.safetensors")[DOWN][3, 4] == 65504.0
