"""Public sets by name, on the files in ../shared/data and on tables of other publishers' forms."""

import json
from pathlib import Path

import datasets
import pytest

from igrpo_jax.data.filter import usable
from igrpo_jax.data.presets import PRESETS, columns_of, opened
from igrpo_jax.rewards import compare, gold_is_parsable
from igrpo_jax.types import Problem

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = {
    "aime24": ("aime24", 30, "204"),
    "aime25": ("aime25", 30, "70"),
    "amc23": ("amc23", 40, "27.0"),
    "gsm8k": ("gsm8k_test", 1319, "18"),
    "math500": ("math500", 500, r"\left( 3, \frac{\pi}{2} \right)"),
    "minerva": ("minerva_math", 272, "1.6"),
}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public sets in ../shared/data")
@pytest.mark.parametrize("name", SETS)
def test_every_row_of_a_shared_set_loads_and_none_is_dropped(name, load):
    file, rows, first = SETS[name]
    source = load(f"{name}?file={DATA}/{file}.jsonl")
    assert (source.name, len(source), source[0].columns["answer"]) == (name, rows, first)
    lines = [json.loads(line) for line in (DATA / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [(line.get("problem") or line["question"]).strip() for line in lines]
    assert [source[i].question for i in range(rows)] == asked
    words = lambda questions: [len(question.split()) for question in questions]
    _, report = usable(source, count_tokens=words, max_prompt_length=1024, gold_is_parsable=gold_is_parsable)
    assert (report.kept, report.dropped) == (rows, {})
    golds = {source[i].columns["answer"] for i in range(rows)}
    assert [gold for gold in golds if compare(gold, gold) != 1] == []


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the public sets in ../shared/data")
def test_the_training_split_is_the_same_preset(load):
    source = load(f"gsm8k?file={DATA}/gsm8k_train.jsonl&label=train")
    assert (source.name, len(source), source[0].columns["answer"]) == ("train", 7473, "72")


def test_a_name_is_the_publishers_set_unless_another_place_is_given():
    assert opened("gsm8k")[:3] == ("hf", "openai/gsm8k", {"label": "gsm8k", "split": "test", "name": "main"})
    assert opened("gsm8k?split=train&limit=3")[2] == {
        "label": "gsm8k", "split": "train", "name": "main", "limit": "3"
    }  # fmt: skip
    assert opened("gsm8k?tfds=gsm8k")[:3] == ("tfds", "gsm8k", {"label": "gsm8k", "split": "test"})
    assert opened("aime24?file=a%3Fb.jsonl")[:3] == ("file", "a?b.jsonl", {"label": "aime24"})
    assert opened("aime24?hf=me/copy&split=test")[:3] == ("hf", "me/copy", {"label": "aime24", "split": "test"})


@pytest.mark.parametrize(
    ("name", "columns", "where"),
    [
        ("aime24", ["id", "problem", "solution", "answer", "url", "year"], {"question": "problem", "answer": "answer"}),
        ("amc23", ["id", "answer", "url", "question"], {"question": "question", "answer": "answer"}),
        ("minerva", ["question", "answer"], {"question": "question", "answer": "answer"}),
        ("gsm8k", ["question", "answer"], {"question": "question", "answer": "answer", "answer_after": "####"}),
        (
            "math",
            ["problem", "level", "solution", "type"],
            {"question": "problem", "answer": "solution", "answer_boxed": True},
        ),
    ],
)
def test_columns_are_found_in_every_known_form(name, columns, where):
    assert columns_of(PRESETS[name], columns) == where


def test_the_same_rows_from_a_file_and_from_a_saved_dataset(load, tmp_path):
    rows = [{"problem": "1 + 1?", "solution": r"It is \boxed{2}."}, {"problem": "2 + 3?", "solution": r"\boxed{5}"}]
    (tmp_path / "math.jsonl").write_text("\n".join(map(json.dumps, rows)))
    datasets.disable_progress_bars()
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(tmp_path / "saved")
    from_file, from_hub = load(f"math?file={tmp_path}/math.jsonl"), load(f"math?hf={tmp_path}/saved")
    assert [from_file[i] for i in range(2)] == [from_hub[i] for i in range(2)]
    assert from_file[1] == Problem(1, "2 + 3?", {**rows[1], "answer": "5"})


def test_a_column_of_the_users_own_has_no_rule_of_the_presets(load, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "2?", "answer": "so #### 2", "short": "2"}\n')
    assert load(f"gsm8k?file={tmp_path}/a.jsonl")[0].columns["answer"] == "2"
    assert load(f"gsm8k?file={tmp_path}/a.jsonl&answer=short")[0].columns["answer"] == "2"


def test_mistakes_are_named(fails, tmp_path):
    fails("aime23", "no set is called 'aime23'; did you mean 'aime2")
    fails("mix", "no set is called 'mix'", "kind:name?option=value")
    fails("aime24?file=x.jsonl&hf=me/copy", "hf and file both say where to read it; keep one")
    (tmp_path / "a.jsonl").write_text('{"text": "1?", "answer": "1"}\n')
    fails(f"aime24?file={tmp_path}/a.jsonl", "no column 'problem' for the question; present: text, answer")
