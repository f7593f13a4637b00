"""The embedded model, fetched and converted for real: its tokenizer and its greedy answers."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import decoder
from models.formats.load import load

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "smollm2.json").read_text())
# Ids that other tools, whose tokenizers are not ours, print for this model's family.
KNOWN = {
    "The quick brown fox jumps over the lazy dog": [504, 2365, 6354, 16438, 27003, 690, 260, 23790, 2767],
    "  leading spaces": [216, 2899, 5600],
    "Hello world": [19556, 905],
    "Write a haiku about the ocean.\n": [19161, 253, 421, 30614, 563, 260, 5065, 30, 198],
    "the Q4_K_M block layout": [1195, 1606, 36, 79, 59, 79, 61, 3608, 10220],
    "<|im_start|><|im_end|><|endoftext|>": [1, 2, 0],
    "Quelle est la capitale de la France ? Réponds en une phrase.": [
        65, 2726, 290, 1264, 2618, 47765, 1121, 367, 2618, 4649, 9148, 428, 2756, 96, 19870, 430, 16520, 8715, 30,
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def smollm2(smollm2_directory):
    return load(str(smollm2_directory), remat="none")


def test_the_tokenizer_agrees_with_other_tools(smollm2):
    tokenizer = smollm2.tokenizer
    for text, ids in KNOWN.items():
        assert tokenizer.encode(text, add_special_tokens=True) == ids
        assert tokenizer.decode(ids) == text
    # Digits one by one: 0 to 9 are 32 to 41, a space before them its own token 216.
    assert tokenizer.encode("1234567890 12") == [33, 34, 35, 36, 37, 38, 39, 40, 41, 32, 216, 33, 34]
    assert (tokenizer.bos_token_id, tokenizer.pad_token_id, smollm2.stop_ids, len(tokenizer)) == (1, 2, [2], 49152)
    assert tokenizer.all_special_tokens and len(tokenizer.all_special_ids) >= 3


def test_chat_template(smollm2):
    for row in GOLDEN:
        message = [{"role": "user", "content": row["question"]}]
        text = smollm2.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        assert smollm2.tokenizer.encode(text, add_special_tokens=False) == row["prompt"]


@partial(jax.jit, static_argnames="steps")
def greedy(view, tokens, lengths, *, steps):
    """The `steps` most probable tokens [P, steps] behind each prompt."""
    last, prefix = decoder.prefill(view, tokens, lengths)
    first = decoder.unembed(view, last).argmax(-1).astype(jnp.int32)

    def step(state, place):
        token, cache = state
        used = jnp.full((len(tokens), 1), place)
        hidden, cache = decoder.extend(view, token[:, None, None], prefix, cache, used)
        return (decoder.unembed(view, hidden[:, 0, 0]).argmax(-1).astype(jnp.int32), cache), token

    return jax.lax.scan(step, (first, decoder.new_cache(view, prefix, 1, steps)), jnp.arange(steps))[1].T


def test_greedy_answers_equal_those_of_transformers(smollm2):
    lengths = np.array([len(row["prompt"]) for row in GOLDEN], np.int32)
    tokens = np.zeros((len(GOLDEN), lengths.max()), np.int32)
    for row, example in zip(tokens, GOLDEN, strict=True):
        row[: len(example["prompt"])] = example["prompt"]
    answers = np.asarray(greedy(decoder.sampling_view(smollm2.policy, jnp.float32), tokens, lengths, steps=28))
    assert max(len(row["answer"]) for row in GOLDEN) == 28
    for answer, row in zip(answers, GOLDEN, strict=True):
        assert answer[: len(row["answer"])].tolist() == row["answer"]
        assert smollm2.tokenizer.decode(row["answer"], skip_special_tokens=False) == row["text"]
