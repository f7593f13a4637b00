"""Rows whose question is a conversation, as TRL and verl have them."""

import json

import pytest

from igrpo_jax.config import Config, DataConfig, PromptConfig, TrainConfig
from igrpo_jax.data import load_problems
from igrpo_jax.prompts import Prompter
from models.formats.tokenizer import byte_tokenizer

USER = {"role": "user", "content": "1 + 1?"}
SYSTEM = {"role": "system", "content": "Be brief."}
BEFORE = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]

VERL = {
    "data_source": "gsm8k",
    "prompt": [USER],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"index": 0, "split": "train"},
}
TRL = {"prompt": [SYSTEM, *BEFORE, USER], "ground_truth": 2}


@pytest.fixture
def write(tmp_path):
    def write(*rows, suffix="jsonl"):
        path = tmp_path / f"rows.{suffix}"
        if suffix == "parquet":
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        else:
            path.write_text("\n".join(map(json.dumps, rows)))
        return f"file:{path}?question=prompt"

    return write


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_verls_rows(write, load, suffix):
    spec = write(VERL, VERL | {"prompt": [SYSTEM, USER]}, suffix=suffix)
    first, second = list(load(f"{spec}&answer=reward_model.ground_truth"))
    assert (first.question, second.question) == ([USER], [SYSTEM, USER])
    assert first.columns["answer"] == "2" and first.columns["prompt"] == [USER]
    assert first.columns["data_source"] == "gsm8k"


def test_trls_rows(write, load):
    (problem,) = list(load(f"{write(TRL)}&answer=ground_truth"))
    assert (problem.question, problem.columns["answer"]) == ([SYSTEM, *BEFORE, USER], "2")


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "1 + "}, {"type": "text", "text": "1?"}],
        [{"type": "text", "text": "1 + 1?"}],
    ],
)
def test_what_is_said_may_come_in_parts(write, load, content):
    row = {"prompt": [{"role": "user", "content": content, "name": None}], "answer": 2}
    assert load(write(row))[0].question == [USER]


def test_a_record_of_lists_is_a_list_of_records(write, load):
    row = {"prompt": {"role": ["system", "user"], "content": ["Be brief.", "1 + 1?"]}, "answer": 2}
    assert load(write(row))[0].question == [SYSTEM, USER]


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}],
        [{"role": "user"}],
        ["1 + 1?"],
        {"role": "user", "content": "1 + 1?"},
    ],
)
def test_what_is_neither_text_nor_conversation_is_refused(write, fails, prompt):
    fails(write({"prompt": prompt, "answer": 2}), "row 0: column 'prompt' holds a", "not the text of a question")


def test_rows_that_cannot_be_put_to_the_model_are_dropped_and_counted(write, capsys):
    """A conversation that the assistant ends, one that the template refuses, half a character."""
    rows = [
        {"prompt": [USER], "answer": 2},
        {"prompt": [USER, BEFORE[1]], "answer": 2},
        {"prompt": [SYSTEM, USER], "answer": 2},
        {"prompt": "1 + 1\ud83d", "answer": 2},
        {"prompt": [{"role": "user", "content": "\udc00"}], "answer": 2},
        {"prompt": "1 + 1", "answer": "\ud83d"},
        {"prompt": "1 + 1 \U0001f600", "answer": 2},
    ]
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + tokenizer.chat_template
    )
    config = Config(data=DataConfig(train=(write(*rows),)), train=TrainConfig(problems_per_step=1))
    data = load_problems(config, count_tokens=Prompter(tokenizer, PromptConfig()).lengths)
    assert {str(data.batches(step)[0].question) for step in range(4)} == {str([USER]), "1 + 1 \U0001f600"}
    said = capsys.readouterr().out
    assert "kept 2 of 7, dropped 1 no question (id 1), 1 refused by the chat template (id 2)" in said
    assert "3 broken text (ids 3, 4, 5)" in said


def test_nothing_that_the_template_takes_is_an_error_that_names_it(write):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% if messages | length > 1 %}{{ raise_exception('no') }}{% endif %}{{ messages[0]['content'] }}"
    )
    config = Config(data=DataConfig(train=(write({"prompt": [SYSTEM, USER], "answer": 2}),)))
    with pytest.raises(
        ValueError, match=r"refused by the chat template .* nothing is left .* see which roles it takes"
    ):
        load_problems(config, count_tokens=Prompter(tokenizer, PromptConfig()).lengths)
