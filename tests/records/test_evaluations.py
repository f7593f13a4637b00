"""eval.jsonl and generations/: nothing twice, nothing lost."""

import json

from rich.console import Console

from igrpo_jax.records.evaluations import Evaluations, read_evaluations
from igrpo_jax.records.runlog import RunLog
from igrpo_jax.records.writer import Writer


def line(score=0.5, **changes):
    return {"set": "s", "mode": "bare", "select": None, "temperature": 0.6, "scores": {"avg@1": score}} | changes


def record(folder, *evaluations, say=print):
    writer = Writer(say)
    log = Evaluations(folder, writer, say)
    for step, what, texts in evaluations:
        log.record(step, what, [{"text": text} for text in texts])
    writer.close()


def lines_of(path):
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_and_all_samples_are_written(tmp_path):
    record(tmp_path, (3, line(), ["a", "b\u2028c"]))
    assert lines_of(tmp_path / "eval.jsonl") == [
        {"step": 3, **line(), "generations": "generations/step-3-s-bare.jsonl"}
    ]
    texts = (tmp_path / "generations" / "step-3-s-bare.jsonl").read_bytes().strip().split(b"\n")
    assert [json.loads(text) for text in texts] == [
        {"step": 3, "set": "s", "text": "a"}, {"step": 3, "set": "s", "text": "b\u2028c"}
    ]  # fmt: skip


def test_the_same_evaluation_again_replaces_and_another_one_stands_beside(tmp_path):
    record(tmp_path, (3, line(), ["a"]), (3, line(temperature=0.0), ["greedy"]), (4, line(), ["later"]))
    record(tmp_path, (3, line(0.75), ["again"]))
    found = read_evaluations(tmp_path)
    assert lines_of(tmp_path / "eval.jsonl") == found
    assert [(x["step"], x["temperature"], x["scores"]["avg@1"]) for x in found] == [
        (3, 0.0, 0.5), (4, 0.6, 0.5), (3, 0.6, 0.75)
    ]  # fmt: skip
    texts = [lines_of(tmp_path / x["generations"])[0]["text"] for x in found]
    assert texts == ["greedy", "later", "again"]
    assert len(list((tmp_path / "generations").iterdir())) == 3


def test_names_of_sets_are_no_paths(tmp_path):
    record(tmp_path, (0, line(set="../a/b", mode="refined", select="best"), ["x"]))
    (path,) = (tmp_path / "generations").iterdir()
    assert path.name == "step-0-..%2Fa%2Fb-refined-best.jsonl"


def test_what_cannot_be_written_is_said_and_the_scores_are_kept(tmp_path):
    (tmp_path / "generations").write_text("in the way")
    said = []
    record(tmp_path, (1, line(), ["a"]), say=said.append)
    assert len(said) == 1 and "cannot be written" in said[0]
    assert lines_of(tmp_path / "eval.jsonl")[0]["scores"] == {"avg@1": 0.5}


def test_resuming_forgets_later_steps_and_makes_the_last_one_again_once(tmp_path):
    def run(completed):
        return RunLog(tmp_path, steps=9, completed=completed, console=Console(quiet=True))

    log = run(0)
    for step in (0, 2, 4):
        log.evaluation(step, line(), [{"text": f"of {step}"}])
    log.metrics(0, {"eval/s/avg@1": 0.5})
    log.metrics(2, {"eval/s/avg@1": 0.5})
    log.close()
    (tmp_path / "generations" / "step-2-s-bare.jsonl.17.part").write_text("half")
    log = run(4)  # step 4 was evaluated, but killed before its metrics were there
    assert not log.evaluated(4)
    log.evaluation(4, line(0.25), [{"text": "again"}])
    log.close()
    assert [(x["step"], x["scores"]["avg@1"]) for x in lines_of(tmp_path / "eval.jsonl")] == [
        (0, 0.5),
        (2, 0.5),
        (4, 0.25),
    ]
    run(2).close()
    assert [x["step"] for x in lines_of(tmp_path / "eval.jsonl")] == [0, 2]
    assert sorted(p.name for p in (tmp_path / "generations").iterdir()) == [
        "step-0-s-bare.jsonl",
        "step-2-s-bare.jsonl",
    ]
    run(0).close()
    assert read_evaluations(tmp_path) == [] and list((tmp_path / "generations").iterdir()) == []
