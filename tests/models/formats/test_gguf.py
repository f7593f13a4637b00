"""GGUF files, written here from a golden model the way llama.cpp's converter writes them, and damaged in every way."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.formats import gguf
from models.formats.gguf import convert
from models.formats.load import read_config
from models.formats.storage import open_tensors
from models.formats.tokenizer import load_tokenizer, stop_ids

GOLDEN = Path(__file__).parents[2] / "golden" / "llama_tied"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz+="
WORDS = ["Ġ", *CHARACTERS, "he", "ll", "hell", "hello", "Ġa", "Ċ", "Ã", "©", "12", "Ġ1", "<note>"]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 128,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 40,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10_000.0,
    "llama.rope.dimension_count": 8,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": [*SPECIAL, *WORDS, *(f"unused{i}" for i in range(56 - len(SPECIAL) - len(WORDS)))],
    "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(WORDS) - 1) + [4] + [1] * (56 - len(SPECIAL) - len(WORDS)),
    "tokenizer.ggml.merges": ["h e", "l l", "he ll", "hell o", "Ġ a", "1 2", "Ġ 1"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": TEMPLATE,
}
FROM_HF = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers.": "blk.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.": "ffn_",
    "_proj.": ".",
}


def golden() -> dict[str, np.ndarray]:
    return {name: part[tuple(slice(None) for _ in part.shape)] for name, part in open_tensors(GOLDEN).items()}


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's row order, written out: of each head channels 0, 4, 1, 5, 2, 6, 3, 7."""
    order = [head * 8 + channel for head in range(heads) for channel in (0, 4, 1, 5, 2, 6, 3, 7)]
    return rows[order]


def write(path, *, extra=None, leave_out=(), **changes) -> Path:
    """The golden model as a GGUF file; `changes` replace or (None) remove metadata, dots written as `__`."""
    from gguf import GGUFWriter

    metadata = METADATA | {name.replace("__", "."): value for name, value in changes.items()}
    writer = GGUFWriter(path, metadata.pop("general.architecture"))
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for name, value in metadata.items():
        if value is not None:
            kinds.get(type(value), writer.add_array)(name, value)
    tensors = dict(extra or {})
    for name, value in golden().items():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        for theirs, ours in FROM_HF.items():
            name = name.replace(theirs, ours)
        tensors[name] = value if heads is None else interleaved(value, heads)
    for name, value in tensors.items():
        if name not in leave_out:
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    convert(write(folder / "model.gguf"), folder / "out")
    return folder / "out"


def test_weights_come_back_in_hugging_face_order(converted):
    tensors = open_tensors(converted)
    assert tensors.keys() == golden().keys()
    for name, value in golden().items():
        np.testing.assert_array_equal(tensors[name][tuple(slice(None) for _ in value.shape)], value, err_msg=name)


def test_config_and_generation_config(converted):
    assert read_config(converted) == read_config(GOLDEN)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert json.loads((converted / "generation_config.json").read_text()) == ids
    assert json.loads((converted / "config.json").read_text()).items() >= ids.items()


def test_tokenizer_merges_splits_digits_and_keeps_special_tokens_whole(converted):
    tokenizer = load_tokenizer(converted)
    tokens = METADATA["tokenizer.ggml.tokens"]
    cut = lambda text: [tokens[i] for i in tokenizer.encode(text, add_special_tokens=False)]
    assert cut("hello a") == ["hello", "Ġa"]
    assert cut("ab 12=3") == ["a", "b", "Ġ", "1", "2", "=", "3"]
    assert cut("é\n") == ["Ã", "©", "Ċ"]
    assert cut("<|im_start|>hello<|im_end|>") == ["<|im_start|>", "hello", "<|im_end|>"]
    assert cut("a<note>b") == ["a", "<note>", "b"]
    assert tokenizer.decode(tokenizer.encode("hello a 12")) == "hello a 12"
    assert tokenizer.decode(tokenizer.encode("<|im_end|><note>"), skip_special_tokens=True) == "<note>"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token) == (
        "<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>",
    )  # fmt: skip
    assert tokenizer.chat_template == TEMPLATE and tokenizer.model_max_length == 128
    assert stop_ids(converted, tokenizer) == [2]


def test_an_untied_head_is_read(tmp_path):
    head = np.arange(56 * 32, dtype=np.float32).reshape(56, 32)
    convert(write(tmp_path / "model.gguf", extra={"output.weight": head}), tmp_path / "out")
    assert not read_config(tmp_path / "out").tied
    np.testing.assert_array_equal(open_tensors(tmp_path / "out")["lm_head.weight"][:, :], head)


def test_quantized_tensors_are_read(tmp_path):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    value = golden()["model.embed_tokens.weight"]
    packed = quantize(value, GGMLQuantizationType.Q8_0)
    tensor = SimpleNamespace(data=packed, tensor_type=GGMLQuantizationType.Q8_0, name="token_embd.weight")
    np.testing.assert_array_equal(gguf._values(tmp_path, tensor, None), dequantize(packed, tensor.tensor_type))
    np.testing.assert_allclose(gguf._values(tmp_path, tensor, None), value, atol=np.abs(value).max() / 127)
    tensor.tensor_type = GGMLQuantizationType.Q8_1
    with pytest.raises(ValueError, match=r"tensor token_embd\.weight is quantized as Q8_1"):
        gguf._values(tmp_path, tensor, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "gemma"}, "architecture 'gemma' is not supported; supported is llama"),
        ({"tokenizer__ggml__pre": "llama-bpe"}, "tokenizer.ggml.pre = 'llama-bpe' is not implemented"),
        ({"tokenizer__ggml__pre": None}, "tokenizer.ggml.pre = None is not implemented; implemented: 'smollm'"),
        ({"tokenizer__ggml__model": "llama"}, "tokenizer.ggml.model = 'llama'"),
        ({"tokenizer__ggml__add_bos_token": True}, "tokenizer.ggml.add_bos_token = True"),
        ({"tokenizer__ggml__tokens": ["a"] * 56}, "tokens, token types and merges do not fit together"),
        ({"tokenizer__ggml__token_type": [5] * 56}, r"token types \[5\]"),
        ({"tokenizer__ggml__merges": None}, "metadata tokenizer.ggml.merges is missing"),
        ({"llama__rope__scaling__type": "yarn"}, r"llama\.rope\.scaling\.type = 'yarn' is not implemented"),
        ({"llama__expert_count": 8}, r"llama\.expert_count = 8 is not implemented"),
        ({"llama__rope__dimension_count": 4}, r"llama\.rope\.dimension_count = 4 is not implemented for heads of 8"),
        ({"llama__block_count": None}, "metadata llama.block_count is missing"),
        ({"llama__block_count": 3}, r"tensor blk\.2\.\S+ .* is missing"),
        ({"llama__block_count": 1}, r"tensor blk\.1\.\S+ is not implemented"),
        (
            {"llama__feed_forward_length": 44},
            r"tensor blk\.0\.ffn_down\.weight has shape \(32, 40\), the metadata asks",
        ),
        ({"extra": {"rope_freqs.weight": np.ones(4, np.float32)}}, r"tensor rope_freqs\.weight is not implemented"),
        ({"leave_out": ("blk.1.attn_q.weight",)}, r"tensor blk\.1\.attn_q\.weight \(32, 32\) is missing"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(changes, message, tmp_path):
    file = write(tmp_path / "model.gguf", **changes)
    with pytest.raises(ValueError, match=message) as error:
        convert(file, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.04, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_named(share, tmp_path):
    data = write(tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"model\.gguf is corrupt or truncated .*delete it and download") as error:
        convert(tmp_path / "model.gguf", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_other_files_are_named(tmp_path):
    (tmp_path / "model.gguf").write_text("<html>not found</html>" * 100)
    with pytest.raises(ValueError, match=r"is corrupt or truncated"):
        convert(tmp_path / "model.gguf", tmp_path / "out")


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [(8, "<Q", 2**62), (16, "<Q", 2**62), (24, "<Q", 2**62), (24, "<Q", 2**40), (4, "<I", 7), (0, "4s", b"GGML")],
)  # fmt: skip
def test_counts_and_lengths_beyond_the_file_are_refused_at_once(place, form, value, tmp_path):
    file = write(tmp_path / "model.gguf")
    data = bytearray(file.read_bytes())
    struct.pack_into(form, data, place, value)
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"is corrupt or truncated .*delete it and download it again"):
        convert(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_list_of_numbers_longer_than_the_file_is_refused_at_once(tmp_path):
    name = b"general.list"
    head = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", len(name)) + name
    (tmp_path / "model.gguf").write_bytes(head + struct.pack("<IIQ", 9, 4, 2**60))
    with pytest.raises(ValueError, match=r"has 60 bytes, and something in its header 4611686018427387904"):
        convert(tmp_path / "model.gguf", tmp_path / "out")


@pytest.mark.parametrize("value", [0, 2**31, "text", True, [1, 2]])
def test_numbers_of_another_kind_are_named(value, tmp_path):
    with pytest.raises(ValueError, match=r"metadata llama\.attention\.head_count = .* must be a positive number"):
        convert(write(tmp_path / "model.gguf", llama__attention__head_count=value), tmp_path / "out")
