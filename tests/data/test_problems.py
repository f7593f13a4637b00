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
