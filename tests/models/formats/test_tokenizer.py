"""The byte tokenizer, stop ids, and loading without a word."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.formats.tokenizer import byte_tokenizer, load_tokenizer, save_tokenizer, stop_ids, turn_end

ROOT = Path(__file__).parents[3]


def test_ids_are_bytes():
    tokenizer = byte_tokenizer()
    text = "héllo 12\n\t 汉\x00\x7f\xa0\xad"
    assert tokenizer.encode(text, add_special_tokens=True) == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    for byte in range(128):
        assert tokenizer.encode(chr(byte)) == [byte]
    assert len(tokenizer) == 259
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 257, 258)
    assert tokenizer.encode("a<eos>b") == [97, 257, 98]
    assert tokenizer.decode([256, 97, 257], skip_special_tokens=True) == "a"
    assert tokenizer.decode([97, 263, 98]) == "ab"  # ids that only the padded vocabulary of a model has
    assert tokenizer.decode([0xC3]) == "\ufffd"


def test_chat_template_of_bytes():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3"}]
    text = byte_tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "system: Be brief.\nuser: 2 + 3\nassistant: "


def test_saved_tokenizers_come_back_and_suit_transformers_4(tmp_path):
    save_tokenizer(byte_tokenizer(), tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["chat_template"]
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode("aé") == [97, 0xC3, 0xA9]
    assert (loaded.eos_token_id, loaded.chat_template) == (257, byte_tokenizer().chat_template)


def test_a_directory_without_tokenizer_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"has no usable tokenizer .*put the model's tokenizer\.json") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="has no usable tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [5, 6]}, {"eos_token_id": 7}, [5, 6, 7, 257]),
        ({"eos_token_id": 257}, {"eos_token_id": 257}, [257]),
        ({}, {"eos_token_id": None}, [257]),
        (None, {"eos_token_id": [9, 257]}, [9, 257]),
    ],
)
def test_stop_ids_come_from_everywhere_once(generation, config, expected, tmp_path):
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stop_ids(tmp_path, byte_tokenizer()) == expected


def test_no_stop_id_is_an_error(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="names no end-of-text token; set eos_token_id"):
        stop_ids(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("behind", "ends"),
    [
        ("<|im_end|>\n", True),
        (" <|im_end|>", True),
        ("<|im_end|><eos>", True),
        ("\n", False),
        ("", False),
        ("</s>", False),
    ],
)
@pytest.mark.parametrize("special", [True, False])
def test_what_ends_a_turn_of_the_chat_template_is_a_stop_id(behind, ends, special, tmp_path):
    """Base models are trained to go on after their eos; what a chat template ends turns with is another token."""
    from tokenizers import AddedToken

    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=special, normalized=False), AddedToken("word")])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{{{{ m['role'] + ':' + m['content'] + {behind!r} }}}}{{% endfor %}}"
    )
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 257}')
    assert turn_end(tokenizer) == (end if ends else None)
    assert stop_ids(tmp_path, tokenizer) == ([257, end] if ends else [257])


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "{% broken", "{{ messages[0]['content'] }}"])
def test_templates_that_tell_no_turn_end_are_left_alone(template):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    assert turn_end(tokenizer) is None
    assert stop_ids(None, tokenizer) == [257]


def test_importing_is_light_and_loading_is_quiet():
    code = (
        "import sys, models.formats.load\n"
        "assert not {'transformers', 'tokenizers', 'huggingface_hub', 'gguf', 'safetensors'} & set(sys.modules)\n"
        "from models.formats.tokenizer import byte_tokenizer\n"
        "byte_tokenizer()"
    )
    environment = {"PATH": "", "HOME": "/nonexistent", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
