"""Weights against transformers' logits, into shards and back out, and every way in which files can be wrong."""

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import decoder
from models.formats import storage, weights
from models.formats.load import read_config
from models.formats.tokenizer import byte_tokenizer
from models.formats.weights import export, leaves, load_weights

GOLDEN = Path(__file__).parents[2] / "golden"
NAMES = ("llama_tied", "llama3_scaled", "qwen2", "qwen3", "mistral")

pytestmark = pytest.mark.usefixtures("quick_compile")


def load(directory, **changes):
    config = replace(read_config(directory), **changes)
    return load_weights(directory, config, remat="none")


@jax.jit
def forward(policy, prompts, lengths, completions):
    """Logits [P, G, 1 + T, V] behind the prompt and behind every token of the completion."""
    last, prefix = decoder.prefill(policy, prompts, lengths)
    hidden, _ = decoder.extend(policy, completions, prefix, None)
    first = jnp.broadcast_to(last[:, None, None], (*hidden.shape[:2], 1, hidden.shape[-1]))
    return decoder.unembed(policy, jnp.concatenate([first, hidden], axis=2))


def expected(name):
    with np.load(GOLDEN / name / "expected.npz") as file:
        return (file["prompts"], file["lengths"], file["completions"]), file["logits"]


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(leaves(one), leaves(other), strict=True):
        assert a.array.dtype == b.array.dtype == np.float32
        np.testing.assert_array_equal(np.asarray(a.array), np.asarray(b.array), err_msg=a.path)


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_transformers(name):
    inputs, logits = expected(name)
    assert len(set(inputs[1].tolist())) == 3 and logits.std() > 1  # unequal prompts, and not a flat distribution
    np.testing.assert_allclose(forward(load(GOLDEN / name), *inputs), logits, atol=1e-4, rtol=0)


def test_the_golden_positions_are_long_enough_to_see_rope_scaling():
    inputs, logits = expected("llama3_scaled")
    assert np.abs(forward(load(GOLDEN / "llama3_scaled", rope_scaling=None), *inputs) - logits).max() > 0.1


@dataclass(frozen=True)
class Recorder(storage.Tensor):
    """A stored tensor that notes how many values are read from it."""

    reads: list

    def __getitem__(self, index):
        part = self.part[index]
        self.reads.append((self.name, part.size))
        return part


@pytest.mark.parametrize("mesh", ["8x1", "4x2", "2x4"])
def test_every_device_reads_only_its_slices(mesh, make_layout, monkeypatch):
    reads, layout, folder = [], make_layout(mesh), GOLDEN / "llama3_scaled"
    opened = weights.open_tensors
    monkeypatch.setattr(
        weights, "open_tensors", lambda d: {name: Recorder(**vars(t), reads=reads) for name, t in opened(d).items()}
    )
    policy = load_weights(folder, read_config(folder), shardings=layout.train_shardings, remat="none")
    for leaf, place in zip(leaves(policy), jax.tree.leaves(layout.train_shardings(policy)), strict=True):
        assert leaf.array.sharding.is_equivalent_to(place, leaf.array.ndim)
    # Together they read every value once: no device read another's part, and copies share one read.
    sizes = {name: np.prod(tensor.shape) for name, tensor in opened(folder).items()}
    assert {name: sum(n for other, n in reads if other == name) for name in sizes} == sizes
    assert max(n for name, n in reads if name.endswith("gate_proj.weight")) == 40 * 32 // 8
    monkeypatch.undo()
    assert_same(policy, load(folder))


@pytest.mark.parametrize("name", NAMES)
def test_export_reads_back_bit_equal(name, tmp_path):
    policy = load(GOLDEN / name)
    export(policy, tmp_path / "out", tokenizer=byte_tokenizer(), source=GOLDEN / name)
    assert_same(load(tmp_path / "out"), policy)
    assert read_config(tmp_path / "out") == read_config(GOLDEN / name)


def test_sharded_export_in_several_files(make_layout, tmp_path):
    folder, layout = GOLDEN / "qwen3", make_layout("4x2")
    policy = load_weights(folder, read_config(folder), shardings=layout.train_shardings, remat="none")
    with jax.transfer_guard("disallow"):
        export(policy, tmp_path / "out", tokenizer=byte_tokenizer(), file_bytes=30_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(set(index["weight_map"].values())) == files
    assert index["metadata"]["total_size"] == sum(leaf.array.size * 4 for leaf in leaves(policy))
    assert_same(load(tmp_path / "out"), load(folder))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_export_in_half_precision(dtype, tmp_path):
    policy = load(GOLDEN / "mistral")
    export(policy, tmp_path / "out", tokenizer=byte_tokenizer(), dtype=dtype)
    rounded = jax.tree.map(lambda x: x.astype(dtype).astype("float32"), policy)
    assert_same(load(tmp_path / "out"), rounded)
    if dtype == "bfloat16":  # as which it was stored
        assert_same(rounded, policy)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype
    with pytest.raises(ValueError, match="dtype 'int8' cannot be written"):
        export(policy, tmp_path / "other", tokenizer=byte_tokenizer(), dtype="int8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_export_carries_token_ids_and_generation_settings(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / "mistral", source)
    config = json.loads((source / "config.json").read_text()) | {"eos_token_id": [5, 6], "pad_token_id": 9}
    (source / "config.json").write_text(json.dumps(config))
    (source / "generation_config.json").write_text('{"eos_token_id": [5, 6, 7], "temperature": 0.6}')
    export(load(source), tmp_path / "out", tokenizer=byte_tokenizer(), source=source)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (written["bos_token_id"], written["eos_token_id"], written["pad_token_id"]) == (1, [5, 6], 9)
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert kept == {"eos_token_id": [5, 6, 7], "temperature": 0.6}
    # Without the file they are config.json's, where older transformers wrote them.
    (source / "generation_config.json").unlink()
    (source / "config.json").write_text(json.dumps(config | {"temperature": 0.6, "max_length": 20}))
    export(load(source), tmp_path / "out", tokenizer=byte_tokenizer(), source=source)
    kept = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert kept == {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258, "max_length": 20, "temperature": 0.6}
    # Without a source the tokenizer's ids are taken.
    export(load(source), tmp_path / "out", tokenizer=byte_tokenizer())
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 257
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.parametrize("name", NAMES)
def test_export_loads_in_transformers(name, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export(load(GOLDEN / name), tmp_path / "out", tokenizer=byte_tokenizer(), source=GOLDEN / name)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    (prompts, lengths, completions), logits = expected(name)
    for p, g in np.ndindex(*logits.shape[:2]):
        row = np.concatenate([prompts[p, : lengths[p]], completions[p, g]])[None]
        with torch.no_grad():
            made = model(torch.tensor(row)).logits[0, lengths[p] - 1 :].numpy()
        np.testing.assert_allclose(made, logits[p, g], atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("ab") == [97, 98]


class Interrupting:
    """A tokenizer whose saving is interrupted."""

    bos_token_id = eos_token_id = pad_token_id = 0

    def save_pretrained(self, directory, **_):
        raise KeyboardInterrupt


def test_an_interrupted_export_leaves_what_was_there(tmp_path):
    policy = load(GOLDEN / "qwen2")
    with pytest.raises(KeyboardInterrupt):
        export(policy, tmp_path / "out", tokenizer=Interrupting())
    assert not list(tmp_path.iterdir())
    export(policy, tmp_path / "out", tokenizer=byte_tokenizer())
    with pytest.raises(KeyboardInterrupt):
        export(policy, tmp_path / "out", tokenizer=Interrupting())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert_same(load(tmp_path / "out"), policy)


def test_export_does_not_overwrite_other_things(tmp_path):
    policy = load(GOLDEN / "qwen2")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    for target in (tmp_path / "notes", tmp_path / "notes" / "diary.txt"):
        with pytest.raises(ValueError, match="exists and holds no model; choose another"):
            export(policy, target, tokenizer=byte_tokenizer())
    with pytest.raises(ValueError, match=r"cannot write .*free or allow writing there"):
        export(policy, tmp_path / "notes" / "diary.txt" / "out", tokenizer=byte_tokenizer())
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 3}, r"tensor model\.layers\.2\.\S+ \(.*\) is missing"),
        ({"layers": 1}, r"tensor model\.layers\.1\.\S+ \(.*\) is not part of a llama model"),
        ({"mlp": 44}, r"tensor model\.layers\.0\.mlp\.down_proj\.weight has shape \(32, 40\), config.json asks for"),
        ({"tied": False}, r"tensor lm_head\.weight \(56, 32\) is missing"),
        ({"family": "qwen2", "qkv_bias": True}, r"tensor model\.layers\.0\.self_attn\.k_proj\.bias \(16,\) is missing"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        load(GOLDEN / "llama_tied", **changes)


def rewritten(directory, name, **changes):
    """A copy of a golden model as one file, with some tensors added."""
    directory.mkdir()
    shutil.copy(GOLDEN / name / "config.json", directory)
    tensors = {key: part[tuple(slice(None) for _ in part.shape)] for key, part in open_golden(name).items()}
    tensors |= {key.replace("__", "."): value for key, value in changes.items()}
    storage.write_tensors(directory, {key: value.shape for key, value in tensors.items()}, tensors.__getitem__)
    return directory


def open_golden(name):
    return storage.open_tensors(GOLDEN / name)


def test_redundant_tensors_are_allowed_and_others_are_not(tmp_path):
    head = open_golden("llama_tied")["model.embed_tokens.weight"][:]
    frequencies = {"model__layers__0__self_attn__rotary_emb__inv_freq": np.ones(4, np.float32)}
    tied = rewritten(tmp_path / "tied", "llama_tied", lm_head__weight=head, **frequencies)
    assert_same(load(tied), load(GOLDEN / "llama_tied"))
    scored = rewritten(tmp_path / "scored", "llama_tied", score__weight=np.ones((1, 32), np.float32))
    with pytest.raises(ValueError, match=r"tensor score\.weight \(1, 32\) is not part of"):
        load(scored)


def test_other_dtypes_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"model.norm.weight": np.ones(32, np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"tensor model\.norm\.weight is stored as I8; convert it to one of F32"):
        storage.open_tensors(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_truncated_file_is_named(keep, tmp_path):
    shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    file = tmp_path / "model" / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"model-00002-of-00003\.safetensors is corrupt or truncated .*delete it"
    ) as error:
        load(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_a_tensor_in_two_files_is_named(tmp_path):
    shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    first, second = (tmp_path / "model" / f"model-0000{i}-of-00003.safetensors" for i in (1, 2))
    shutil.copy(first, second)
    with pytest.raises(ValueError, match=r"model-00002\S+: tensor model\.\S+ is in another file too"):
        load(tmp_path / "model")


def test_missing_files_are_named(tmp_path):
    shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    index = tmp_path / "model" / "model.safetensors.index.json"
    (tmp_path / "model" / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00003-of-00003\.safetensors is missing; download"):
        load(tmp_path / "model")
    index.write_text("{}")
    with pytest.raises(ValueError, match="has no weight_map"):
        load(tmp_path / "model")
    index.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing; download the model again, as safetensors"):
        load(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", 3, None, "a\0"]
)
def test_an_index_names_files_of_its_directory_alone(name, tmp_path):
    shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    index = tmp_path / "model" / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    places["weight_map"]["lm_head.weight"] = name
    index.write_text(json.dumps(places))
    with pytest.raises(
        ValueError, match=r"index\.json: weight_map has .* for lm_head\.weight, which is no file of that"
    ):
        load(tmp_path / "model")


def test_a_link_out_of_the_directory_is_not_followed(tmp_path):
    shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    file = tmp_path / "model" / "model-00002-of-00003.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"model-00002-of-00003\.safetensors leads out of the model's directory, to "):
        load(tmp_path / "model")


@pytest.mark.parametrize("exchange", [True, False])
def test_an_export_takes_the_place_of_another(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(storage, "_exchange", lambda one, other: False)
    policy = load(GOLDEN / "qwen2")
    for dtype in ("float32", "bfloat16"):
        export(policy, tmp_path / "out", tokenizer=byte_tokenizer(), dtype=dtype)
        assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_export_left_is_put_back_or_swept(tmp_path):
    policy = load(GOLDEN / "qwen2")
    export(policy, tmp_path / "out", tokenizer=byte_tokenizer())
    (tmp_path / "out").rename(tmp_path / ".out.0123abcd.old")
    for name, age in ((".out.1.partial", 0), (".out.2.partial", 7200)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    storage.recover(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.1.partial", "out"]
    assert_same(load(tmp_path / "out"), policy)
