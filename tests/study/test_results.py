"""Metrics of a run, out of records that the test writes."""

import dataclasses
import json

import pytest

from igrpo_jax.config import AlgorithmConfig, Config, EvalConfig, TrainConfig
from igrpo_jax.evaluate.evaluate import conditions
from igrpo_jax.study.results import read_results

CONFIG = Config(
    algorithm=AlgorithmConfig(num_drafts=2, num_generations=3), train=TrainConfig(steps=8, problems_per_step=4)
)


def write(workdir, name, records):
    workdir.mkdir(exist_ok=True)
    (workdir / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def steps(count=8, **more):
    return [
        {
            "step": s, "num_tokens": 100.0 * s, "train/tokens": 60.0, "step_time": 9.0 if s == 1 else 2.0,
            "compile/count": 3.0 if s == 1 else 0.0, "entropy": float(s), "memory/peak_gb": 1.0 + s, **more,
        }
        for s in range(1, count + 1)
    ]  # fmt: skip


def line(step, name, mode, scores, by_problem, select=None, temperature=0.6):
    return {
        "step": step, "set": name, "mode": mode, "select": select, "gold": False, "problems": len(by_problem), "n": 4,
        "temperature": temperature, "top_p": 0.95, "scores": scores, "by_problem": by_problem,
    }  # fmt: skip


def values(results):
    return {name: score.value for name, score in results.scores.items()}


def test_costs_and_metrics_of_training(tmp_path):
    write(tmp_path, "metrics.jsonl", steps())
    wanted = ("entropy", "entropy@50%", "entropy@0%", "cost/*")
    found = values(read_results(tmp_path, CONFIG, wanted))
    assert found["entropy"] == 7.5  # of the last quarter, steps 7 and 8
    assert (found["entropy@50%"], found["entropy@0%"]) == (4, 1)
    assert found["cost/step_s"] == 2  # the step that compiled is not counted
    assert found["cost/seconds"] == 16 and found["cost/hours"] == pytest.approx(16 / 3600)
    assert found["cost/peak_gb"] == 9
    assert found["cost/problems"] == 32 and found["cost/sampled_completions"] == 32 * 5
    assert found["cost/sampled_tokens"] == 3600 and found["cost/tokens_per_s"] == 225
    assert found["cost/trained_tokens"] == 480 and found["cost/optimizer_steps"] == 8
    assert found["cost/completions_per_s"] == 10


def test_what_is_counted_while_running_beats_what_was_planned(tmp_path):
    records = steps(2, **{"sampling/extra_problems": 1.0, "update/nonfinite": 1.0})
    records[1] |= {"update/skipped": 1.0, "train/tokens": None}
    write(tmp_path, "metrics.jsonl", records)
    spent = read_results(tmp_path, CONFIG, ()).spent
    assert (spent["problems"], spent["sampled_completions"]) == (10, 50)
    assert (spent["trained_tokens"], spent["optimizer_steps"]) == (60, 0)
    write(tmp_path, "metrics.jsonl", [record | {"num_completions": 22.0} for record in records])
    assert read_results(tmp_path, CONFIG, ()).spent["sampled_completions"] == 44


def test_scores_by_problem_out_of_the_last_evaluation(tmp_path):
    names = ("a/avg@4", "a/refined/avg@4", "b/avg@4")
    own = [{"step": step} | {f"eval/{name}": 0.5 for name in names} for step in (0, 8)]
    write(tmp_path, "metrics.jsonl", [*steps(), *own])
    scores = {"avg@4": 0.5, "avg@4_stderr": 0.1, "pass@2": 0.75, "maj@4": 0.5, "maj@8": 1.0, "mean_length": 11}
    write(
        tmp_path,
        "eval.jsonl",
        [
            line(0, "a", "bare", {"avg@4": 0.125}, [[7, 1, 4], [9, 0, 4]]),
            line(0, "b", "bare", {"avg@4": 0.0}, [[1, 0, 4]]),
            line(8, "a", "bare", scores, [[7, 1, 4], [9, 3, 4]]),
            line(8, "b", "bare", {"avg@4": 1.0, "maj@4": 1.0}, [[1, 4, 4]]),
            line(8, "a", "refined", {"avg@4": 0.75}, [[7, 2, 4], [9, 4, 4]], "majority"),
            # Made by hand, later:
            line(8, "a", "bare", {"avg@4": 0.0}, [[7, 0, 4], [9, 0, 4]], temperature=1.0),
            line(8, "a", "bare", {"avg@9": 0.0}, [[7, 0, 9], [9, 0, 9]]) | {"num_samples": 9},
            line(8, "a", "bare", {"avg@4": 0.0}, [[7, 0, 4], [9, 0, 4]]) | {"reward": ["strict"]},
            line(8, "a", "refined", {"avg@4": 0.0}, [[7, 0, 4], [9, 0, 4]], "best"),
            line(8, "c", "bare", {"avg@4": 0.0}, [[1, 0, 4]]),
            line(9, "a", "bare", {"avg@4": 0.0}, [[7, 0, 4], [9, 0, 4]]),
        ],
    )
    found = read_results(tmp_path, CONFIG, ("eval/*", "eval/mean/avg@0%")).scores
    assert {name: score.value for name, score in found.items()} == {
        "eval/mean/avg": 0.75, "eval/mean/maj": 1, "eval/a/avg": 0.5, "eval/a/pass@2": 0.75, "eval/a/maj@4": 0.5,
        "eval/a/maj@8": 1, "eval/a/maj": 1, "eval/a/mean_length": 11, "eval/b/avg": 1, "eval/b/maj": 1,
        "eval/b/maj@4": 1, "eval/a/refined/avg": 0.75, "eval/mean/avg@0%": 0.0625,
    }  # fmt: skip
    assert found["eval/a/avg"].cells == [{7: 0.25, 9: 0.75}]
    assert found["eval/a/pass@2"].cells == [{7: 0.5, 9: 1.0}]
    assert found["eval/mean/avg"].cells == [{7: 0.25, 9: 0.75}, {1: 1.0}]
    assert found["eval/mean/maj"].cells is None


OTHERS = (
    {"eval": {"temperature": 1.0}}, {"eval": {"top_p": 0.5}}, {"eval": {"num_samples": 9}}, {"eval": {"problems": 1}},
    {"eval": {"max_completion_length": 9}}, {"eval": {"refine": False}}, {"eval": {"num_drafts": 9}},
    {"eval": {"rounds": 9}}, {"eval": {"select": "best"}}, {"prompt": {"system": "s"}},
    {"prompt": {"refine": "{question}{draft}"}}, {"reward": {"functions": ("ended",)}}, {"model": {"source": "m"}},
    {"seed": 9},
)  # fmt: skip
"""Settings of an evaluation by hand, none of which a run that refines has."""


@pytest.mark.parametrize("mode", ["bare", "refined"])
def test_an_evaluation_by_hand_is_none_of_the_study(mode, tmp_path):
    config = dataclasses.replace(CONFIG, eval=EvalConfig(refine=True))
    others = [changed(config, other) for other in OTHERS]
    others += [changed(config, {"prompt": {"question": "Q {question}"}})] * (mode == "bare")
    place = "eval/a/" + ("refined/" if mode == "refined" else "")
    made = lambda score, its: line(8, "a", mode, {"avg@4": score}, [[7, 4 * score, 4]]) | conditions(mode, its)
    own = made(1.0, config)
    write(tmp_path, "metrics.jsonl", [*steps(), {"step": 8, f"{place}avg@4": 1.0}])
    for other in [*(made(0.0, its) for its in others), made(0.0, config) | {"regraded": "generations/x.jsonl"}]:
        write(tmp_path, "eval.jsonl", [own, other])
        found = read_results(tmp_path, config, (f"{place}avg",)).scores[f"{place}avg"]
        assert (found.value, found.cells) == (1.0, [{7: 1.0}]), other


def changed(config, fields):
    """The config with other values in a section, or of a field."""
    new = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return dataclasses.replace(config, **new)


def test_without_eval_jsonl_scores_come_from_the_metrics(tmp_path):
    before = {"step": 0, "eval/a/avg@2": 0.25, "eval/a/avg@2_stderr": 0.1, "eval/b/avg@8": 0.75}
    after = {"step": 8, "eval/a/avg@2": 0.5, "eval/b/avg@8": 1.0, "eval/a/drafted/avg@2": 0.5, "eval/a/maj@2": None}
    write(tmp_path, "metrics.jsonl", [before, *steps(), after])
    found = read_results(tmp_path, CONFIG, ("eval/*", "eval/mean/*@0%")).scores
    assert {name: score.value for name, score in found.items()} == {
        "eval/mean/avg": 0.75, "eval/a/avg": 0.5, "eval/b/avg": 1, "eval/a/drafted/avg": 0.5,
        "eval/mean/avg@0%": 0.5,
    }  # fmt: skip
    assert not any(score.cells for score in found.values())


def test_a_run_without_a_step_is_refused(tmp_path):
    write(tmp_path, "metrics.jsonl", [{"step": 0, "eval/a/avg@2": 0.5}])
    with pytest.raises(ValueError, match=r"metrics.jsonl has no step of training"):
        read_results(tmp_path, CONFIG, ("entropy",))


def test_half_a_line_costs_that_line(tmp_path):
    write(tmp_path, "metrics.jsonl", steps())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "num_tok')
    assert values(read_results(tmp_path, CONFIG, ("entropy",)))["entropy"] == 7.5
