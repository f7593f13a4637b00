"""From a config to batches and evaluation sets."""

import dataclasses
import json

import pytest

from igrpo_jax.config import Config, DataConfig, EvalConfig, RewardConfig, TrainConfig
from igrpo_jax.data import load_problems
from igrpo_jax.data.problems import SERIAL_GOLDS, _map_golds
from igrpo_jax.rewards import gold_is_parsable

TRAIN, TEST = "arithmetic:mix?split=train", "arithmetic:mix?split=test&limit=5"


def load(*, train=(TRAIN,), reward=("accuracy",), problems=0, **data):
    config = Config(
        data=DataConfig(train=train, **data), reward=RewardConfig(functions=reward),
        train=TrainConfig(problems_per_step=4), eval=EvalConfig(problems=problems),
    )  # fmt: skip
    return load_problems(config, count_tokens=lambda texts: [len(text) for text in texts])


def test_batches_and_evaluation_sets_share_no_question(capsys):
    data = load(eval=(TEST,))
    trained = {p.question for step in range(81) for p in data.batches(step)}
    assert list(data.evals) == ["arithmetic_mix"]
    assert len(trained) > 200 and not trained & {p.question for p in data.evals["arithmetic_mix"]}
    assert data.longest_prompt == len("What is 15 + 15?")
    assert "kept 324 of 324" in capsys.readouterr().out


def test_what_is_evaluated_leaves_the_prompts_of_training_as_they_are():
    longer = "arithmetic:sum?split=test&limit=3&min_sum_operand=10000&max_sum_operand=10100"
    alone, beside = load(), load(eval=(longer,))
    assert beside.longest_prompt > alone.longest_prompt == alone.longest_trained == beside.longest_trained > 0


def test_two_sets_of_one_name_need_a_label():
    with pytest.raises(ValueError, match=r"two evaluation sets are called arithmetic_mix; .* label="):
        load(eval=(TEST, TEST))
    assert list(load(eval=(TEST, f"{TEST}&label=again")).evals) == ["arithmetic_mix", "again"]


def test_an_endless_evaluation_set_needs_a_size():
    with pytest.raises(ValueError, match=r"is endless; say how many .* --eval.problems"):
        load(eval=("gym:chain_sum",))
    assert len(load(eval=("gym:chain_sum",), problems=3).evals["chain_sum"]) == 3


def test_all_problems_have_the_columns_of_all_sources(tmp_path):
    rows = [{"question": "1 + 1?", "answer": "2"}] * 4 + [{"question": "2 + 1?", "answer": "3", "hint": "count"}] * 4
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load(train=(f"file:{path}", "gym:lcm?size=8"), reward=("accuracy", "gym"), eval=(TEST,))
    problems = [problem for step in range(4) for problem in data.batches(step)] + data.evals["arithmetic_mix"]
    assert {tuple(sorted(problem.columns)) for problem in problems} == {tuple(sorted(problems[0].columns))}
    assert {"answer", "hint", "gym_task", "gym_entry"} <= problems[0].columns.keys()
    tasks = [problem.columns["gym_task"] for problem in problems]
    hints = [problem.columns["hint"] for problem in problems]
    assert (tasks.count("lcm"), hints.count("count")) == (8, 4) and {*tasks} == {"lcm", None}


def test_tasks_whose_scorer_evaluates_text_are_refused_for_their_own_reward_only():
    with pytest.raises(ValueError, match="evaluating the answer"):
        load(train=("gym:simple_integration",), reward=("gym",))
    assert load(train=("gym:simple_integration?size=40",), reward=("accuracy",)).batches(0)


def test_many_golds_are_checked_by_the_graders_with_the_same_verdicts():
    golds = [str(n) for n in range(SERIAL_GOLDS)] + ["", r"\frac{1}{2}", r"\frac{1}{"]
    config = dataclasses.replace(RewardConfig(), workers=1)
    assert _map_golds(config, gold_is_parsable, golds) == [gold_is_parsable(gold) for gold in golds]


def rows(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"file:{path}"


def test_half_a_character_drops_its_row_and_no_other(tmp_path, capsys):
    """Lone surrogates are valid JSON, and no tokenizer or file takes them."""

    def count(texts):
        return [len(text.encode()) for text in texts]

    spec = rows(
        tmp_path / "a.jsonl", *({"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(4)),
        {"question": "What \ud83d is 1 + 1?", "answer": "2"}, {"question": "1 + 2?", "answer": "\udc00"},
        {"question": "\ud83d\ude00 2 + 2?", "answer": "4"},
    )  # fmt: skip
    config = Config(data=DataConfig(train=(spec,)), train=TrainConfig(problems_per_step=5))
    data = load_problems(config, count_tokens=count)
    assert {p.id for p in data.batches(0)} == {0, 1, 2, 3, 6}
    assert "a: kept 5 of 7, dropped 2 broken text (ids 4, 5); longest" in capsys.readouterr().out
    bad = rows(tmp_path / "b.jsonl", {"question": "\ud83d", "answer": "2"})
    with pytest.raises(ValueError, match="nothing is left to train on: mend the file: it holds halves of characters"):
        load_problems(Config(data=DataConfig(train=(bad,))), count_tokens=count)


def test_fingerprints_tell_other_data_from_the_same(tmp_path):
    first = [{"question": f"{n} + 1?", "answer": str(n + 1), "level": n, "tags": [1.5, None]} for n in range(4)]

    def fingerprint(*lines):
        spec = rows(tmp_path / "a.jsonl", *lines)
        return load(train=(spec,)).fingerprints[spec]

    seen = fingerprint(*first)
    assert seen[0] == 4 and len(seen[1]) == 16 and fingerprint(*first) == seen
    others = [
        [*first, first[0]],
        [first[1], first[0], *first[2:]],
        [{**first[0], "question": "0 + 2?"}, *first[1:]],
        [{**first[0], "answer": "2"}, *first[1:]],
        [{**first[0], "level": 7}, *first[1:]],
    ]
    found = [fingerprint(*lines) for lines in others]
    assert len({seen, *found}) == 6 and [count for count, _ in found] == [5, 4, 4, 4, 4]
    assert load(train=("gym:chain_sum",)).fingerprints["gym:chain_sum"][0] == 256


def test_evaluation_alone_reads_no_training_data():
    said = []
    config = Config(data=DataConfig(train=("file:not-there.jsonl",), eval=(TEST,)))
    data = load_problems(
        config,
        count_tokens=lambda texts: [len(text) for text in texts],
        train=False,
        columns=("hint",),
        say=said.append,
    )
    assert [problem.columns["hint"] for problem in data.evals["arithmetic_mix"]] == [None] * 5
    assert len(said) == 1 and said[0].startswith("arithmetic_mix: kept 5 of 5")
    with pytest.raises(ValueError, match="training data was not read"):
        data.batches(0)
