"""`--job evaluate`, `grade` and `sample` on a model's directory, without a config: against scores counted otherwise."""

import io
import itertools
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import launch
from igrpo_jax.evaluate.ungraded import Judged
from igrpo_jax.rewards import Scores, compare, extract_answer
from jobs.export import write_export
from tests.judge_server import Reply, completion, running

QUESTIONS = ["What is 1 + 1?", "What is 2 + 3?", "Say seven.", "How many?", "What is 12 - 4?", "And now?"]
SHORT = [
    "--sampling.max-completion-length",
    "24",
    "--prompt.max-prompt-length",
    "64",
    "--prompt.max-draft-length",
    "24",
]


@pytest.fixture(autouse=True)
def _alone(monkeypatch, cache, quick_compile):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    monkeypatch.delenv("IGRPO_TRACEBACK", raising=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny model as a directory for transformers, which no run of ours has trained."""
    from models.formats.load import find, load_policy

    _, config = launch.parse(["--config", "smoke.py"])
    found = find(config.model.source)
    folder = tmp_path_factory.mktemp("model")
    write_export(config, load_policy(found), found, folder)
    return folder / "export"


@pytest.fixture(scope="module")
def evaluated(model, tmp_path_factory, cache):
    """The workdir of an evaluation, its JSON on standard output, and what it says on standard error."""
    folder = tmp_path_factory.mktemp("evaluated")
    rows = [{"question": question, "answer": str(number)} for number, question in enumerate(QUESTIONS)]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IGRPO_CACHE", cache)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        status = launch.main(
            [
                *["--job", "evaluate", "--model.source", str(model), "--data.eval", f"file:{folder}/mine.jsonl"],
                *[
                    "--eval.refine",
                    "--eval.num-samples",
                    "6",
                    "--workdir",
                    str(folder / "run"),
                    "--mesh",
                    "8x1",
                    *SHORT,
                ],
            ]
        )
    assert status == 0, err.getvalue()
    return folder / "run", json.loads(out.getvalue()), err.getvalue()


def lines_of(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def counted(records: list[dict], mode: str) -> dict[str, float]:
    """The scores of these records, by other means than ours: texts compared anew, subsets counted one by one."""
    shares, subsets, votes, cut = [], [], [], []
    texts = []
    for record in records:
        stages = record["stages"] if mode == "bare" else record["stages"][-1:]
        texts.append([one for stage in stages for one in stage["completions"]])
    n = min(map(len, texts))
    for record, some in zip(records, texts, strict=True):
        answers = [extract_answer(one["text"]) for one in some]
        right = [answer is not None and bool(compare(answer, record["gold"])) for answer in answers]
        shares.append(np.mean(right))
        subsets.append(np.mean([any(pair) for pair in itertools.combinations(right, 4)]))
        block = [answer for answer in answers[:n] if answer is not None]
        winner = Counter(block).most_common(1)[0][0] if block else None
        votes.append(winner is not None and bool(compare(winner, record["gold"])))
        cut += [not one["ended"] for one in some]
    return {
        f"avg@{n}": np.mean(shares), f"avg@{n}_stderr": np.std(shares, ddof=1) / len(shares) ** 0.5,
        "pass@4": np.mean(subsets), f"maj@{n}": np.mean(votes), "clipped_ratio": np.mean(cut),
    }  # fmt: skip


def test_scores_are_those_of_the_generations_and_both_modes_cost_the_same(evaluated):
    workdir, printed, said = evaluated
    bare, refined = lines_of(workdir / "eval.jsonl")
    assert (bare["mode"], refined["mode"], refined["select"], refined["gold"]) == ("bare", "refined", "majority", False)
    for line, place in ((bare, "eval/mine/"), (refined, "eval/mine/refined/")):
        records = lines_of(workdir / line["generations"])
        assert [record["question"] for record in records] == QUESTIONS
        for name, value in counted(records, line["mode"]).items():
            assert line["scores"][name] == pytest.approx(value) == printed[f"{place}{name}"]
        tokens = sum(c["tokens"] for r in records for stage in r["stages"] for c in stage["completions"])
        assert line["sampled_tokens"] == tokens
    assert abs(bare["sampled_tokens"] / refined["sampled_tokens"] - 1) < 0.02
    assert f"sampled tokens bare {bare['sampled_tokens']:,}, refined {refined['sampled_tokens']:,}" in said
    assert "refined" in said and "majority" in said and "temperature 0.6, top-p 0.95, up to 24 tokens" in said
    drafts = [[lines_of(workdir / x["generations"])[0]["stages"][0]["completions"]] for x in (bare, refined)]
    assert drafts[0] == drafts[1]


def test_generations_are_graded_again_without_devices(evaluated, tmp_path, capsys, monkeypatch):
    """With the gold answers set to what was answered, so that some of it is right."""
    workdir, _, _ = evaluated
    line = lines_of(workdir / "eval.jsonl")[0]
    records = lines_of(workdir / line["generations"])
    for record in records:
        parsed = [c["parsed"] for stage in record["stages"] for c in stage["completions"] if c["parsed"]]
        record["gold"] = next((answer for answer in parsed if any(map(str.isdigit, answer))), "0")
    place = tmp_path / "other" / Path(line["generations"]).name
    place.parent.mkdir()
    place.write_text("\n".join(map(json.dumps, records)) + "\n")
    monkeypatch.setattr("jobs.devices.start_devices", None)
    command = ["--job", "grade", "--generations", str(place), "--workdir", str(tmp_path / "run")]
    assert launch.main([*command, "--reward.functions", "ended", "accuracy"]) == 0
    (graded,) = json.loads(capsys.readouterr().out)["evaluations"]
    expected = counted(records, "bare")
    assert expected["pass@4"] > 0
    for name, value in expected.items():
        assert graded[f"eval/mine/{name}"] == pytest.approx(value)
    (again,) = lines_of(tmp_path / "run" / "eval.jsonl")
    assert (again["reward"], again["temperature"]) == (["ended", "accuracy"], None)
    ours = lines_of(tmp_path / "run" / again["generations"])
    assert [r["stages"][0]["completions"][0]["text"] for r in ours] == [
        r["stages"][0]["completions"][0]["text"] for r in records
    ]
    assert all(set(c["rewards"]) == {"ended", "accuracy"} for r in ours for c in r["stages"][0]["completions"])


def test_a_second_grading_by_the_same_reward_changes_no_score_and_keeps_the_settings(evaluated, tmp_path, capsys):
    workdir, _, _ = evaluated
    for line in lines_of(workdir / "eval.jsonl"):
        command = ["--job", "grade", "--generations", str(workdir / line["generations"]), "--workdir", str(tmp_path)]
        assert launch.main(command) == 0
        again = lines_of(tmp_path / "eval.jsonl")[-1]
        names = ("scores", "by_problem", "sampled_tokens", "n", "select", "temperature", "prompt", "model", "mode")
        assert {name: again[name] for name in names} == {name: line[name] for name in names}


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["--job", "grade"], "needs --generations FILE"),
        (["--job", "grade", "--generations", "nowhere.jsonl"], "no file of generations at nowhere.jsonl"),
        (["--job", "grade", "--generations", "{workdir}/eval.jsonl"], "holds no samples of a problem"),
        (["--job", "grade", "--generations", "{workdir}/empty.jsonl"], "holds no samples; give a file of"),
        (["--job", "grade", "--generations", "{workdir}/eval.jsonl", "--workdir", "{workdir}"], "written over; choose"),
        (["--job", "train"], "--job train needs --config"),
        (["--job", "evaluate"], "name sources with --data.eval"),
        (["--job", "evaluate", "--data.eval", "aime23"], "no set is called 'aime23'"),
        (["--job", "sample", "--question", "x", "--eval.select", "best"], "not every question has a gold answer"),
        (["--job", "sample", "--question", "x", "--eval.select", "judge"], "judge.model is empty"),
        (
            [
                "--job",
                "sample",
                "--question",
                "x",
                "--eval.select=judge",
                "--judge.model=j",
                "--judge.prompt={completion}{answer}",
            ],
            "judge.prompt shows it the gold answer",
        ),
        (["--job", "sample", "--question", "x", "--prompt.refine", "{question}"], "prompt.refine has no {draft}"),
        (["--job", "sample", "--questions", "no/where.txt"], "no such file, and no source of problems"),
        (["--job", "sample", "--question", "x" * 70], "question 1 has 8"),
        (["--job", "sample"], "there is no question; give --question TEXT"),
        (
            ["--job", "evaluate", "--data.eval", "arithmetic:sum", "--eval.refine", "--reward.functions", "ended"],
            "eval.select is majority, but none of reward.functions (ended) reads answers",
        ),
        (["--job", "evaluate", "--eval.rounds", "0"], "eval.rounds is 0; it must be at least 1"),
    ],
)
def test_mistakes_are_one_line(arguments, phrase, evaluated, model, tmp_path, capsys, monkeypatch):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "empty.jsonl").write_text("")
    (workdir / "eval.jsonl").write_text('{"step": 0}\n')
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    arguments = [argument.replace("{workdir}", str(workdir)) for argument in arguments]
    elsewhere = [] if "--workdir" in arguments else ["--workdir", str(tmp_path / "other")]
    command = [*arguments, *elsewhere, "--model.source", str(model), "--mesh", "8x1", *SHORT]
    assert launch.main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and phrase in error and "Traceback" not in error


def test_sample_prints_drafts_the_chosen_one_and_refinements(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "questions.txt").write_text("What is 2 + 2?\n\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("[red]And[/red] \x1b[2J 5?\n"))
    command = ["--job", "sample", "--model.source", str(model), "--mesh", "8x1", "--workdir", str(tmp_path / "none")]
    command += [*SHORT, "--eval.num-drafts", "3", "--eval.num-samples", "2", "--question", "One?"]
    assert launch.main([*command, "--questions", str(tmp_path / "questions.txt")]) == 0
    printed = capsys.readouterr()
    assert "answers of the initial model" in printed.err and not (tmp_path / "none").exists()
    assert printed.out.index("One?") < printed.out.index("What is 2 + 2?")
    assert printed.out.count("CHOSEN (majority)") == 2 and printed.out.count("draft 3 of 3") == 2
    assert printed.out.count("refinement 2 of 2") == 2 and "right" not in printed.out
    assert launch.main([*command[:-2], "--questions", "-"]) == 0
    spoken = capsys.readouterr().out
    assert r"[red]And[/red] \x1b[2J 5?" in spoken and "\x1b" not in spoken


def test_sample_grades_problems_that_have_answers(model, tmp_path, capsys):
    command = ["--job", "sample", "--model.source", str(model), "--mesh", "8x1", "--workdir", str(tmp_path / "none")]
    command += [*SHORT, "--eval.num-drafts", "2", "--eval.num-samples", "2", "--eval.select", "best"]
    assert launch.main([*command, "--questions", "arithmetic:sum?limit=2"]) == 0
    spoken = capsys.readouterr().out
    assert spoken.count("gold answer: ") == 2 and spoken.count("CHOSEN (best)") == 2
    assert spoken.count("right (") + spoken.count("wrong (") == 8


def test_a_judge_chooses_drafts_of_questions_that_nobody_has_answered(model, tmp_path, capsys):
    """It prefers the third draft that it is asked about; the rewards of the config need not name it.

    The question has as many letters as one above, for which the programs are compiled already.
    """
    command = ["--job", "sample", "--model.source", str(model), "--mesh", "8x1", "--workdir", str(tmp_path / "none")]
    command += [*SHORT, "--eval.num-drafts", "3", "--eval.num-samples", "2", "--question", "How many are in a row?"]
    command += ["--eval.select", "judge", "--judge.prompt", "{question} {completion}", "--judge.model", "j"]
    with running() as server:
        server.answer = lambda text, before: Reply(completion("Score: 9" if before == 2 else "Score: 1"))
        judge = ["--judge.base-url", server.url, "--judge.cache", "", "--judge.concurrency", "1"]
        assert launch.main([*command, *judge]) == 0
    texts = [request["messages"][0]["content"] for request in server.requests]
    assert 3 <= len(texts) <= 5 and all(text.startswith("How many are in a row? ") for text in texts)
    shown = capsys.readouterr().out
    assert shown.count("CHOSEN") == 1 and "draft 3 of 3 · CHOSEN (judge)" in shown
    assert "right" not in shown and "wrong" not in shown


def test_a_judge_without_gold_answers_judges_and_answers_are_read_out():
    def judge(prompts, completions, columns):
        worth = np.array([0.25, np.nan], np.float32)
        none = np.zeros(2, np.int32)
        return Scores(np.nan_to_num(worth), {"judge": worth}, [None, None], ["judged", "judge_failed"], none, none)

    scores = Judged(judge)(["q", "q"], ["so \\boxed{4}", ""], {"answer": [None, None]})
    assert scores.parsed == ["4", None] and scores.reasons == ["judged", "judge_failed"]
    assert scores.each["judge"].tolist()[0] == 0.25 and np.isnan(scores.each["judge"][1])
