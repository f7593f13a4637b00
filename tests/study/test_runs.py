"""Whose directory a study's is, and what of it is still to be run."""

import json

import pytest

from igrpo_jax.config import Config, EvalConfig, TrainConfig
from igrpo_jax.study.config import Arm, Study, check_study
from igrpo_jax.study.runs import Root, Run

CONFIG = Config(train=TrainConfig(steps=30), eval=EvalConfig(num_samples=2))
ARMS = {"a": Arm(label="A", paper={"eval/mean/avg": 0.5}), "b": Arm(overrides={"algorithm.beta": 0.5})}


def study(**changes) -> Study:
    return Study(**{"title": "t", "config": CONFIG, "arms": ARMS, "baseline": "a", "seeds": (0, 1)} | changes)


def root(directory, made=None, name="mine", seeds=None) -> Root:
    made = made or study()
    return Root(directory, name, made, check_study(made), seeds or made.seeds)


def finish(directory, *runs):
    there = root(directory)
    for run in runs:
        (directory / run.workdir).mkdir(parents=True)
        (directory / run.workdir / "metrics.jsonl").write_text("")
        there.mark(run, "finished")


def test_study_json_says_what_is_compared(tmp_path):
    finish(tmp_path / "s", Run("a", 0))
    record = json.loads((tmp_path / "s" / "study.json").read_text())
    assert record["name"] == "mine" and record["seeds"] == [0, 1] and record["budget"] == "sampled_completions"
    assert record["arms"] == {
        "a": {"label": "A", "overrides": {}, "paper": {"eval/mean/avg": 0.5}},
        "b": {"label": "b", "overrides": {"algorithm.beta": 0.5}, "paper": {}},
    }
    assert record["runs"][:2] == [
        {"arm": "a", "seed": 0, "workdir": "a/seed-0", "status": "finished"},
        {"arm": "b", "seed": 0, "workdir": "b/seed-0", "status": "waiting"},
    ]
    assert record["config"]["train"]["steps"] == 30


def test_finished_runs_stay_so_and_all_others_are_to_be_run(tmp_path):
    finish(tmp_path, Run("a", 0), Run("b", 1))
    there = root(tmp_path)
    there.mark(Run("b", 0), "running")
    (tmp_path / "b" / "seed-1" / "metrics.jsonl").unlink()
    assert root(tmp_path).status == {
        Run("a", 0): "finished", Run("b", 0): "waiting", Run("a", 1): "waiting", Run("b", 1): "waiting"
    }  # fmt: skip


def test_arms_and_seeds_may_be_added_and_what_runs_do_not_learn_may_change(tmp_path):
    finish(tmp_path, Run("a", 0))
    config = Config(train=TrainConfig(steps=30, micro_batch=4, keep=1), eval=EvalConfig(num_samples=2))
    more = study(config=config, arms=ARMS | {"c": Arm(overrides={"algorithm.beta": 0.1})}, title="other words")
    there = root(tmp_path, more, seeds=(5,))
    assert there.seeds == [5, 0, 1]
    assert [run for run, status in there.status.items() if status == "finished"] == [Run("a", 0)]
    assert Run("c", 5) in there.status


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"config": Config(train=TrainConfig(steps=31), eval=EvalConfig(num_samples=2))}, "a train.steps: 30 -> 31"),
        ({"config": Config(train=TrainConfig(steps=30))}, "a eval.num_samples: 2 -> 4"),
        ({"arms": {"a": Arm(overrides={"algorithm.beta": 1.0}), "b": ARMS["b"]}}, "a algorithm.beta: 0.0 -> 1.0"),
        ({"arms": {"x": Arm(), "b": ARMS["b"]}, "baseline": "x"}, "no arm 'a' any more"),
        ({"budget": "seconds"}, "budget: sampled_completions -> seconds"),
        ({"baseline": "b"}, "baseline: a -> b"),
    ],
)
def test_what_would_not_be_comparable_is_refused_once_a_run_has_begun(changes, phrase, tmp_path):
    root(tmp_path)
    root(tmp_path, study(**changes))
    root(tmp_path)
    finish(tmp_path, Run("a", 0))
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(ValueError, match=f"holds runs of another study .*{phrase}.*choose another --workdir"):
        root(tmp_path, study(**changes))
    assert (tmp_path / "study.json").read_bytes() == before


def test_another_studys_directory_or_a_runs_is_refused(tmp_path):
    root(tmp_path / "one")
    with pytest.raises(ValueError, match="holds the study 'mine' and not 'other'; choose another --workdir"):
        root(tmp_path / "one", name="other")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run and no study; choose another --workdir"):
        root(tmp_path / "run")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="holds something else and no study"):
        root(tmp_path / "notes")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        root(tmp_path / "file" / "study")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "mine"}', '{"name": 3, "runs": [3]}'])
def test_a_damaged_study_json_can_be_deleted(text, tmp_path):
    finish(tmp_path, Run("a", 0))
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(ValueError, match=r"study.json is damaged; delete it and give the same command again"):
        root(tmp_path)
    (tmp_path / "study.json").unlink()
    assert root(tmp_path).status[Run("a", 0)] == "left"  # it is looked at once more, and ends at once
