"""What of runs is read, what is left out and said, and the numbers, against counts made anew."""

import json
import math
from pathlib import Path

import pytest

import launch
from igrpo_jax.learning import spending
from igrpo_jax.report import series, tables
from igrpo_jax.report.evaluations import scores_of
from igrpo_jax.report.runs import LIMITS, differences, read_run
from igrpo_jax.report.samples import FILTERS, flags, pack
from igrpo_jax.report.studies import read_study
from igrpo_jax.report.write import write_report
from jobs import report
from tests.report import made


def read(workdir: Path, name: str = "run"):
    said = []
    return read_run(workdir, name, said.append), said


def test_a_whole_run_is_read_without_a_word(tmp_path):
    run, said = read(made.run(tmp_path / "run", steps=8))
    assert not said and run.status == "finished, 8 steps" and [r["step"] for r in run.steps] == list(range(1, 9))
    assert [record["step"] for record in run.evaluations] == [0, 8]
    assert run.settings["train.steps"] == 8 and run.settings["source.arithmetic:sum"] == [90, "f00d"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", None, "run: its config is left out, config.json is missing"),
        ("config.json", "{", "run: its config is left out: "),
        ("metrics.jsonl", '{"step": 1, "reward": 0.5}\n{"step": 2, "rew\x00}\n', "line 2: damaged"),
        ("eval.jsonl", '{"step": 3, "scores": {"avg@4": 1}}\n', "a line of eval.jsonl (step 3) is left out"),
    ],
)
def test_damage_costs_what_is_damaged_and_is_said(name, content, said, tmp_path):
    workdir = made.run(tmp_path / "run", steps=3)
    (workdir / name).unlink(missing_ok=True)
    if content is not None:
        (workdir / name).write_text(content)
    run, lines = read(workdir)
    assert run is not None and run.steps and any(said in line for line in lines), lines


def test_directories_without_a_run_are_named_and_the_others_shown(tmp_path):
    (tmp_path / "empty").mkdir()
    one, two = made.run(tmp_path / "one", steps=2), made.run(tmp_path / "two", steps=2, beta=0.5)
    page, notes = write_report([one, tmp_path / "empty", two, tmp_path / "nowhere"], tmp_path / "out")
    assert notes == [
        "empty: its config is left out, config.json is missing",
        "empty: left out, it has no metrics.jsonl with a step or an evaluation in it",
        "nowhere: left out, there is no such directory",
        "these runs differ in algorithm.beta; see the configs below",
    ]
    assert all(note in page.read_text() for note in notes)
    with pytest.raises(ValueError, match=r"nothing to report .*nowhere.*give the --workdir of runs that have trained"):
        write_report([tmp_path / "nowhere"], tmp_path / "out")


def test_what_an_older_config_does_not_name_has_its_default(tmp_path):
    runs = [made.run(tmp_path / name, steps=2) for name in ("old", "new")]
    record = json.loads((runs[0] / "config.json").read_text())
    del record["config"]["algorithm"]["select"], record["config"]["optim"]
    (runs[0] / "config.json").write_text(json.dumps(record))
    old, new = (read(run, run.name)[0] for run in runs)
    assert old.settings == new.settings and not differences([old, new])


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    workdir = made.run(tmp_path / "run", steps=5)
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    run, said = read(workdir)
    assert run.status == "stopped at step 2 of 5" and not said
    assert run._replace(live=True).status == "running, step 2 of 5"


@pytest.mark.parametrize("unit", ["sampled_tokens", "trained_tokens", "seconds"])
def test_a_run_with_a_limit_ends_there_and_not_at_its_steps(unit, tmp_path):
    run, _ = read(made.run(tmp_path / "run", steps=8))
    each = {"sampled_tokens": 1000, "trained_tokens": 500, "seconds": 10}[unit]  # as made
    under = lambda limit, **more: run._replace(settings={**run.settings, f"train.max_{unit}": limit}, **more)
    assert under(8 * each).status == "ended after 8 steps, by its limit"
    assert under(8 * each)._replace(steps=run.steps[:5]).status == "stopped at step 5, before its limit"
    assert under(8 * each)._replace(settings=under(5 * each).settings, steps=run.steps[:5]).status == (
        "ended after 5 steps, by its limit"
    )
    assert under(20 * each).status == "stopped at step 8, before its limit"  # though train.steps is 8
    assert under(20 * each, live=True).status == "running, step 8"
    assert under(8 * each, live=True).status == "running, step 8"
    assert under(0).status == "finished, 8 steps" and under(0, live=True).status == "running, step 8 of 8"
    broken = [*run.steps[:7], run.steps[7] | {"num_tokens": "many"}]
    assert under(8 * each, steps=[]).status == "stopped at step 0, before its limit"
    assert "stopped" in under(8 * each, steps=broken).status
    assert "stopped" in run._replace(settings={**under(8 * each).settings, "train.keep": float("nan")}).status
    assert {name.removeprefix("train.") for name in LIMITS} == set(spending.LIMITS.values())


def test_in_a_study_its_word_counts_but_what_lives_runs(tmp_path):
    run, _ = read(made.run(tmp_path / "run", steps=8))
    part = run._replace(steps=run.steps[:3])
    limited = part._replace(settings={**run.settings, "train.max_seconds": 90})
    assert [one._replace(told="finished").status for one in (run, part, limited)] == [
        "finished, 8 steps", "finished, 3 steps", "finished, 3 steps",
    ]  # fmt: skip
    assert part._replace(told="failed").status == "failed at step 3 of 8"
    assert limited._replace(told="failed").status == "failed at step 3"
    assert run._replace(told="left").status == "stopped at step 8 of 8"  # an evaluation or an export is to come
    for told in ("running", "waiting", "done", ""):  # nothing that says how it ended
        assert part._replace(told=told).status == "stopped at step 3 of 8"
    assert part._replace(told="finished", live=True).status == "running, step 3 of 8"
    assert run._replace(settings={}).status == "step 8" and run._replace(settings={}, live=True).status == (
        "running, step 8"
    )


def test_samples_of_another_form_are_counted_and_left_out(tmp_path):
    workdir = made.run(tmp_path / "run", steps=2, samples=2)
    old = {"step": 1, "question": "2 + 2?", "draft": "4", "refinement": "4", "reward": 1.0}
    rows = [old, old | {"stages": []}, old | {"stages": [{"completions": [{"text": None}]}]}, old | {"stages": 3}]
    with (workdir / "samples.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    run, _ = read(workdir)
    said = []
    packed = pack([run], said.append)
    assert packed.count == 4 and said == [
        "run: 4 records of samples.jsonl are left out, they have no stages of completions"
    ]


def test_too_many_samples_are_thinned_evenly_and_said(tmp_path):
    run, _ = read(made.run(tmp_path / "run", steps=10, samples=3))
    size = (run.workdir / "samples.jsonl").stat().st_size
    said = []
    packed = pack([run], said.append, budget=(size + 1) // 2)
    assert packed.index["step"] == [1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10]
    assert packed.left_out == 15 and "15 of 30 are in the page" in said[0]


def test_samples_of_all_files_and_of_evaluations_are_there(tmp_path):
    workdir = made.run(tmp_path / "run", steps=2, samples=1)
    more = made.sample(3, 7, [made.completion("a", 0.0)], [made.completion("b", 1.0)])
    for name in ("samples-3.jsonl", "generations/step-2-held%20out%2Fb-bare.jsonl"):
        (workdir / name).parent.mkdir(exist_ok=True)
        (workdir / name).write_text(json.dumps(more) + "\n")
    packed = pack([read(workdir)[0]], print)
    assert packed.index["step"] == [1, 2, 3, 3]
    assert [packed.index["sources"][k] for k in packed.index["source"]] == ["training"] * 3 + [
        "evaluation held out/b-bare"
    ]


RIGHT, WRONG = made.completion("it is 4", 1.0), made.completion("it is 5", 0.0)


@pytest.mark.parametrize(
    ("drafts", "chosen", "refinements", "holds"),
    [
        ([WRONG, RIGHT], 0, [WRONG, RIGHT], {"fixed", "copied"}),
        ([WRONG, RIGHT], 1, [made.completion("4", 1.0), WRONG], {"broken"}),
        ([RIGHT], 0, [made.completion(" it is 4\n", 1.0)] * 2, {"copied", "no spread", "all right"}),
        ([RIGHT], 0, [made.completion("", 0.5, right=False, reason="timeout")] * 2,
         {"broken", "no spread", "all wrong", "timeout"}),
        ([made.completion("x", 0.0, ended=False, reason="memory")], 0, [RIGHT, WRONG], {"fixed", "cut off", "error"}),
    ],
)  # fmt: skip
def test_what_is_true_of_a_sample(drafts, chosen, refinements, holds):
    found = flags(made.sample(1, 1, drafts, refinements, chosen))
    assert found.keys() == FILTERS.keys() and {name for name, true in found.items() if true} == holds


@pytest.mark.parametrize(
    ("portions", "holds", "reward"),
    [
        ([[WRONG, WRONG], [RIGHT]], set(), 0.333),
        ([[RIGHT], [WRONG, WRONG]], set(), 0.333),
        ([[RIGHT], [RIGHT]], {"no spread", "all right"}, 1.0),
        ([[WRONG], [WRONG], [WRONG]], {"no spread", "all wrong"}, 0.0),
    ],
)
def test_bare_answers_count_in_all_their_portions(portions, holds, reward, tmp_path):
    record = made.sample(1, 1, [WRONG], [RIGHT]) | {"mode": "bare"}
    record["stages"] = [{"stage": k, "draft": None, "completions": some} for k, some in enumerate(portions)]
    assert {name for name, true in flags(record).items() if true} == holds
    workdir = made.run(tmp_path / "run", steps=1, samples=0)
    (workdir / "samples.jsonl").write_text(json.dumps(record) + "\n")
    assert pack([read(workdir)[0]], print).index["reward"] == [reward]
    last = portions[-1]
    assert flags(record | {"mode": "refined"})["all wrong"] == all(one is WRONG for one in last)


def test_a_draft_that_was_kept_from_an_earlier_step_counts_like_any():
    record = made.sample(1, 1, [WRONG], [RIGHT, WRONG])
    record["stages"] = [record["stages"][1] | {"draft": {"text": "it is 4", "reward": 1.0, "right": True, "step": 0}}]
    assert {name for name, true in flags(record).items() if true} == {"broken", "copied"}
    for draft in ([0, 5], [9, 0], [0, None], "x", {"text": 3}):
        record["stages"][0]["draft"] = draft
        assert not flags(record)["broken"]


def test_scores_have_the_intervals_that_are_known_and_eval_jsonl_goes_first(tmp_path):
    workdir = made.run(tmp_path / "run", steps=4)
    rows = [["a", 4, 4], ["b", 2, 4], ["c", 0, 4], ["d", 2, 4]]
    line = {"step": 4, "set": "held out", "mode": "bare", "select": None, "n": 4, "temperature": 0.6}
    line |= {"scores": {"avg@4": 0.5, "pass@2": 0.7, "maj@4": 0.4, "mean_length": 9.0}, "by_problem": rows}
    refined = line | {"mode": "refined", "select": "best", "gold": True, "scores": {"avg@4": 0.9, "avg@4_stderr": 0.1}}
    (workdir / "eval.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(refined) + "\n")
    found = {(s.step, s.mode, s.metric): s for s in scores_of(read(workdir)[0])}
    assert (4, "bare", "pass@4") not in found and found[0, "bare", "pass@4"].value == 0.4
    spread = math.sqrt((0.25 + 0 + 0.25 + 0) / 3 / 4)
    assert found[4, "bare", "avg@4"].low == pytest.approx(0.5 - 1.96 * spread)
    pairs = [1.0, 5 / 6, 0.0, 5 / 6]  # 1 - C(2, 2) / C(4, 2)
    mean = sum(pairs) / 4
    spread = math.sqrt(sum((x - mean) ** 2 for x in pairs) / 3 / 4)
    assert found[4, "bare", "pass@2"].high == pytest.approx(min(0.7 + 1.96 * spread, 1.0))
    assert found[4, "bare", "maj@4"].low is None and "temperature 0.6" in found[4, "bare", "avg@4"].settings
    assert found[4, "refined, best (sees the gold answer)", "avg@4"].high == 1.0


def test_cost_counts_devices_of_every_step(tmp_path):
    workdir = made.run(tmp_path / "run", steps=2)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines[1]["devices"], lines[2]["devices"] = 8.0, 4.0
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run, _ = read(workdir)
    rows = {row.name: row.cells[0] for row in tables.cost([run], 36)}
    assert rows["device hours"] == "0.033" and rows["money, at 36 a device hour"] == "1.20"  # 10 s x 12 devices
    assert rows["devices"] == "4 to 8"
    seconds = {row["phase"]: row["seconds"] for row in tables.phases([run])}
    assert seconds == {"drafting": 4, "refining": 6, "waiting for rewards": 1, "updating": 8, "other": 1}


def test_a_run_without_drafts_has_its_own_words(tmp_path):
    run, _ = read(made.run(tmp_path / "run", steps=2))
    steps = [
        {name: value for name, value in r.items() if not name.startswith(("draft/", "refine/"))} for r in run.steps
    ]
    spread = next(curves for curves in series.REFINING if curves.name == "zero_spread")
    assert {p["series"] for p in series.points([run._replace(steps=steps)], spread)} == {"all groups"}
    assert {p["series"] for p in series.points([run._replace(steps=steps)], series.LEARNING[0])} == {"completions"}


def study(root: Path) -> Path:
    """A study of two arms and two seeds, one run of which has not begun."""
    runs = [
        {"arm": arm, "seed": seed, "workdir": f"{arm}/seed-{seed}", "status": "done"}
        for arm in ("a", "b")
        for seed in (0, 1)
    ]
    for k, entry in enumerate(runs[:3]):
        made.run(root / entry["workdir"], steps=3, seed=k)
    runs[1]["status"], runs[2]["status"] = "failed", "left"
    plan = {
        "name": "s",
        "title": "Drafts or none",
        "arms": {"a": {"label": "iGRPO"}, "b": {"label": "GRPO"}},
        "runs": runs,
    }
    (root / "study.json").write_text(json.dumps(plan))
    rows = [
        {"arm": "a", "metric": "x/avg@4", "mean": 0.5, "low": 0.4, "high": 0.6, "seeds": [0.45, 0.55], "paper": 0.62},
        {"arm": "b", "metric": "x/avg@4", "mean": 0.3, "low": None, "high": None, "seeds": [0.3], "paper": None},
        {"arm": "b", "metric": "x/avg@4", "mean": None},
    ]
    less = [
        {"arm": "a", "against": "b", "metric": "x/avg@4", "mean": 0.2, "low": 0.1, "high": 0.3, "verdict": "better"}
    ]
    budget = {"matched": "completions", "by_arm": {"a": {"sampled_completions": 96}, "b": {"sampled_completions": 96}}}
    (root / "comparison.json").write_text(json.dumps({"rows": rows, "differences": less, "budget": budget}))
    return root


def test_a_study_is_shown_with_what_it_compares(tmp_path):
    said = []
    found = read_study(study(tmp_path / "study"), said.append)
    assert [(run.name, run.arm) for run in found.runs] == [
        ("iGRPO, seed 0", "iGRPO"),
        ("iGRPO, seed 1", "iGRPO"),
        ("GRPO, seed 0", "GRPO"),
    ]
    assert [run.status for run in found.runs] == [
        "finished, 3 steps",
        "failed at step 3 of 3",
        "stopped at step 3 of 3",
    ]
    assert said == [
        "study: GRPO, seed 1: left out, there is no such directory",
        "study: 1 rows of comparison.json are left out, they name no arm, metric or mean",
    ]
    page, notes = write_report([tmp_path / "study"], tmp_path / "out")
    text = page.read_text()
    assert "Drafts or none" in text and "<td>0.620</td>" in text and "<td>better</td>" in text
    assert "0.400 to 0.600" in text and "matched: completions" in text and len(notes) == 2
    assert (tmp_path / "out" / "figures" / "comparison-1.svg").is_file()


def test_figures_are_files_too_and_old_ones_go(tmp_path):
    old = tmp_path / "out" / "figures" / "evaluation-7.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"")
    write_report([made.run(tmp_path / "run")], tmp_path / "out")
    names = {path.name for path in old.parent.iterdir()}
    assert {"reward.svg", "reward.png", "zero_spread.svg", "phases.png", "evaluation-1.svg"} <= names
    assert old.name not in names
    assert (old.parent / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "<svg" in (old.parent / "reward.svg").read_text() and "refinements" in (old.parent / "reward.svg").read_text()
    )


def test_the_job_takes_several_workdirs_and_prints_the_path_last(tmp_path, capsys):
    one, two = made.run(tmp_path / "one", steps=2), made.run(tmp_path / "two", steps=2)
    out = tmp_path / "both"
    arguments = ["--job", "report", "--workdir", str(one), str(two), "--out", str(out), "--gpu-hour-price", "2"]
    assert launch.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "report.html")
    assert launch.main(["--job", "report", "--workdir", str(one)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(one / "report" / "report.html")


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["--job", "report"], "--job report needs a --workdir"),
        (["--job", "report", "--workdir", "/nowhere/at/all"], "nothing to report"),
        (["--job", "report", "--workdir", "x", "--gpu-hour-price", "-1"], "--gpu-hour-price is -1.0; it must be"),
        (["--job", "train"], "--job train needs --config"),
        (["--config", "smoke.py", "--workdir", "a", "b"], "--workdir has 2 directories; --job train takes one"),
    ],
)
def test_bad_arguments_get_one_line(arguments, phrase, capsys, monkeypatch):
    monkeypatch.delenv("IGRPO_TRACEBACK", raising=False)
    assert launch.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert phrase in error and "\n" not in error


def test_watching_ends_with_the_run(tmp_path, monkeypatch, capsys):
    workdir = made.run(tmp_path / "run", steps=2)
    turns = iter([True, True, False])
    waited = []
    monkeypatch.setattr("igrpo_jax.report.runs.lives", lambda path: False)
    monkeypatch.setattr("igrpo_jax.report.runs.living", lambda workdirs: next(turns))
    monkeypatch.setattr(report.time, "sleep", waited.append)
    assert launch.main(["--job", "report", "--watch", "--workdir", str(workdir)]) == 0
    pages = capsys.readouterr().out.splitlines().count(str(workdir / "report" / "report.html"))
    assert (pages, waited) == (3, [60.0, 60.0])


def test_a_report_that_fails_is_a_line(tmp_path):
    assert "warning: no report could be written (ValueError: there is nothing to report" in report.report_on(tmp_path)
    workdir = made.run(tmp_path / "run", steps=2)
    (workdir / "report").write_text("in the way")
    assert report.report_on(workdir).startswith("warning: no report could be written (FileExistsError")
