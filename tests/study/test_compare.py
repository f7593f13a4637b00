"""The job: what is started when, with what config, and what is made of how it ends.

A stand-in for launch.py trains nothing and writes the records of a run; real runs are in test_smoke_study.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jobs.compare
import launch
from igrpo_jax.edges.preemption import RESUME
from igrpo_jax.records.lease import lease

TRAINER = """
import json, os, signal, sys, time
from pathlib import Path
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config = json.loads(Path(arguments["--config"]).read_text())["config"]
workdir = Path(arguments["--workdir"])
workdir.mkdir(exist_ok=True)
with open(workdir.parents[1] / "order", "a") as order:
    order.write(f"{workdir.parent.name} {config['seed']} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
behave = os.environ.get(f"BEHAVE_{workdir.parent.name}", "")
print("trained"); print(behave, flush=True)
if behave == "tell":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(os.getppid(), signal.SIGTERM)
if behave == "wait":
    time.sleep(60)
if behave.startswith("exit"):
    sys.exit(int(behave[4:]))
train, tokens = config["train"], 7 + config["seed"]
steps = train["steps"] if not train["max_sampled_tokens"] else train["max_sampled_tokens"] // tokens
score = 0.5 + config["algorithm"]["beta"] + config["seed"] / 100
with (workdir / "metrics.jsonl").open("w") as file:
    for step in range(1, steps + 1):
        file.write(json.dumps({"step": step, "num_tokens": tokens, "step_time": 1.0, "train/tokens": 1}) + "\\n")
    file.write(json.dumps({"step": steps, "eval/a/avg@2": score}) + "\\n")
"""

STUDY = """
from igrpo_jax.config import *
from igrpo_jax.study.config import Arm, Study


def get_study():
    return Study(
        title="t", config=Config(train=TrainConfig(steps=3, problems_per_step=2)), baseline="base", {more}
        arms={{"other": Arm(overrides={{"algorithm.beta": 0.25}}), "base": Arm()}},
    )
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "launch.py").write_text(TRAINER)
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(jobs.compare, "ROOT", tmp_path)
    monkeypatch.setattr(jobs.compare, "POLL", 0.02)


def compare(tmp_path, *arguments, more="seeds=(0, 1),") -> int:
    (tmp_path / "mine.py").write_text(STUDY.format(more=more))
    study = ["--job", "compare", "--config", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "root")]
    return launch.main([*study, *arguments])


def order(tmp_path) -> list[str]:
    path = tmp_path / "root" / "order"
    return [line.strip() for line in path.read_text().splitlines()] if path.exists() else []


def statuses(tmp_path) -> dict[str, str]:
    record = json.loads((tmp_path / "root" / "study.json").read_text())
    return {run["workdir"]: run["status"] for run in record["runs"]}


def result(tmp_path) -> dict:
    return json.loads((tmp_path / "root" / "comparison.json").read_text())


def test_all_runs_and_a_comparison(tmp_path, capsys):
    assert compare(tmp_path) == 0
    assert order(tmp_path) == ["base 0", "other 0", "base 1", "other 1"]
    assert set(statuses(tmp_path).values()) == {"finished"}
    difference = next(one for one in result(tmp_path)["differences"] if one["metric"] == "eval/mean/avg")
    assert difference["mean"] == pytest.approx(0.25) and difference["of"] == [0, 1]
    assert (tmp_path / "root" / "comparison.md").read_text().startswith("# t\n")
    shown = capsys.readouterr().out
    assert "other, seed 1: finished, 4 of 4" in shown and "comparison.md" in shown.splitlines()[-2]
    report = tmp_path / "root" / "report" / "report.html"
    assert shown.splitlines()[-1] == str(report) and report.is_file()


def test_finished_runs_are_not_touched_and_a_seed_can_be_added(tmp_path):
    assert compare(tmp_path) == 0
    before = (tmp_path / "root" / "other" / "seed-1" / "metrics.jsonl").stat()
    assert compare(tmp_path, "--seeds", "7") == 0
    assert order(tmp_path)[4:] == ["base 7", "other 7"]
    assert (tmp_path / "root" / "other" / "seed-1" / "metrics.jsonl").stat() == before
    rows = result(tmp_path)["rows"]
    assert {tuple(sorted(row["of"])) for row in rows if row["metric"] == "eval/mean/avg"} == {(0, 1, 7)}


def test_some_arms_and_overrides_of_all(tmp_path):
    assert compare(tmp_path, "--arms", "base", "--train.steps", "5", "--seeds", "0") == 0
    assert order(tmp_path) == ["base 0"]
    written = json.loads((tmp_path / "root" / "base" / "seed-0.json").read_text())
    assert written["config"]["train"]["steps"] == 5 and written["beside"] == str(tmp_path)
    assert "Not finished, so not in here: other, seed 0 (waiting)." in (tmp_path / "root/comparison.md").read_text()


def test_a_run_that_fails_stops_no_other_and_is_tried_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BEHAVE_base", "exit3")
    assert compare(tmp_path) == 2
    said = capsys.readouterr()
    assert "2 runs failed (base, seed 0; base, seed 1)" in said.err and "says 'exit3'" in said.err
    assert "base, seed 0: failed with exit status 3: exit3" in said.out
    assert statuses(tmp_path)["other/seed-0"] == "finished" and result(tmp_path)["differences"] == []
    monkeypatch.delenv("BEHAVE_base")
    assert compare(tmp_path) == 0
    assert order(tmp_path)[-2:] == ["base 0", "base 1"]


def test_what_is_measured_is_spent_by_the_baseline_first(tmp_path):
    assert compare(tmp_path, more="seeds=(0, 1), budget='sampled_tokens',") == 0
    limits = [json.loads((tmp_path / f"root/other/seed-{seed}.json").read_text())["config"]["train"] for seed in (0, 1)]
    assert [limit["max_sampled_tokens"] for limit in limits] == [21, 24]
    assert [line for line in order(tmp_path) if line.endswith("0")] == ["base 0", "other 0"]
    budget = result(tmp_path)["budget"]
    assert budget["by_arm"]["base"]["sampled_tokens"] == budget["by_arm"]["other"]["sampled_tokens"] == 22.5


def test_without_its_baseline_a_measured_budget_is_not_known(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BEHAVE_base", "exit3")
    assert compare(tmp_path, more="seeds=(0,), budget='seconds',") == 2
    assert order(tmp_path) == ["base 0"] and statuses(tmp_path)["other/seed-0"] == "waiting"


def test_a_run_that_is_told_to_leave_takes_all_with_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BEHAVE_base", f"exit{RESUME}")
    assert compare(tmp_path) == RESUME
    assert order(tmp_path) == ["base 0"] and "the same command goes on" in capsys.readouterr().out
    monkeypatch.delenv("BEHAVE_base")
    assert compare(tmp_path) == 0


def test_who_is_told_to_leave_writes_what_is_known_and_no_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BEHAVE_base", "tell")
    assert compare(tmp_path) == RESUME
    assert statuses(tmp_path)["base/seed-0"] == "finished" and order(tmp_path) == ["base 0"]
    assert {row["of"][0] for row in result(tmp_path)["rows"]} == {0}
    assert "other, seed 0 (waiting)" in (tmp_path / "root/comparison.md").read_text()
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == "SIGTERM: all runs have left; the same command goes on"
    assert "wrote" not in shown and "eval/mean/avg" not in shown and not (tmp_path / "root" / "report").exists()


def test_who_is_told_to_leave_when_all_is_done_ends_as_always(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BEHAVE_other", "tell")
    assert compare(tmp_path, more="seeds=(0,),") == 0
    assert set(statuses(tmp_path).values()) == {"finished"}
    shown = capsys.readouterr().out
    assert "the same command" not in shown and (tmp_path / "root" / "report" / "report.html").is_file()


def test_who_is_told_to_leave_with_nothing_but_a_failed_run_says_that(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BEHAVE_base", "exit3")
    monkeypatch.setenv("BEHAVE_other", "tell")
    assert compare(tmp_path, more="seeds=(0,),") == 2
    assert "1 run failed (base, seed 0)" in capsys.readouterr().err


def test_there_is_an_end_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("BEHAVE_base", "wait")
    assert compare(tmp_path, "--max-hours", "0.0008", "--grace", "1") == RESUME
    assert statuses(tmp_path)["base/seed-0"] == "left"


def test_runs_share_the_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert compare(tmp_path, "--parallel", "2") == 0
    assert sorted(order(tmp_path)[:2]) == ["base 0 4", "other 0 5"]


def test_a_directory_that_a_run_still_holds_is_waited_for(tmp_path, capsys):
    workdir = tmp_path / "root" / "base" / "seed-0"
    assert compare(tmp_path, "--seeds", "1") == 0
    holding = f"import sys, time; sys.path.insert(0, {str(Path(launch.__file__).parent)!r})\n"
    holding += (
        f"from pathlib import Path; from igrpo_jax.records.lease import lease\nwith lease(Path({str(workdir)!r}),"
    )
    holding += " say=print):\n    print('held', flush=True); time.sleep(2)\n"
    with subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert compare(tmp_path, "--seeds", "0", "1") == 0
    assert order(tmp_path)[2:] == ["other 0", "base 0"]
    assert "base, seed 0: a process is writing there already; waiting for its end" in capsys.readouterr().out


def test_two_comparisons_in_one_directory_are_one_too_many(tmp_path, capsys):
    with lease(tmp_path / "root", say=print):
        assert compare(tmp_path) == 2
    assert "a run is writing here" in capsys.readouterr().err


def test_it_takes_hold_of_no_device(tmp_path):
    """The runs need the memory of all there are."""
    (tmp_path / "mine.py").write_text(STUDY.format(more="seeds=(0,),"))
    code = f"import jobs.compare, launch; from pathlib import Path; jobs.compare.ROOT = Path({str(tmp_path)!r})\n"
    code += f"done = launch.main(['--job', 'compare', '--config', {str(tmp_path / 'mine.py')!r}, '--workdir', "
    code += f"{str(tmp_path / 'root')!r}])\nfrom jax._src import xla_bridge; print(done, list(xla_bridge._backends))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(launch.__file__).parent, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_runs_and_the_exit_status_says_to_go_on(kind, tmp_path):
    (tmp_path / "mine.py").write_text(STUDY.format(more=""))
    code = f"import jobs.compare, launch, sys; from pathlib import Path; jobs.compare.ROOT = Path({str(tmp_path)!r})\n"
    code += f"sys.exit(launch.main(['--job', 'compare', '--config', {str(tmp_path / 'mine.py')!r}, '--workdir', "
    code += f"{str(tmp_path / 'root')!r}]))"
    environment = os.environ | {"BEHAVE_base": "wait"}
    log = tmp_path / "root" / "base" / "seed-0.log"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(launch.__file__).parent, env=environment) as process:
        end = time.monotonic() + 60
        while not (log.exists() and "wait" in log.read_text()):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        process.send_signal(kind)
        assert process.wait(30) == RESUME
    assert statuses(tmp_path)["base/seed-0"] == "left"


@pytest.mark.parametrize(
    ("arguments", "more", "phrase"),
    [
        (["--seeds"], "", "the study has no seeds"),
        ([], "seeds=(),", "the study has no seeds"),
        (["--arms", "bse"], "", "there is no arm 'bse'; did you mean 'base'?"),
        (["--parallel", "0"], "", "--parallel is 0"),
        (["--coordinator", "auto"], "", "--job compare starts each run by itself; leave --coordinator"),
        (["--train.steps", "0"], "", "train.steps is 0"),
        ([], "nonsense=3,", "there is no field 'nonsense'"),
    ],
)
def test_bad_input_is_one_line(arguments, more, phrase, tmp_path, capsys):
    assert compare(tmp_path, *arguments, more=more) == 2
    error = capsys.readouterr().err.strip()
    assert phrase in error and "\n" not in error
    assert not (tmp_path / "root" / "study.json").exists()


def test_a_config_is_no_study(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("from igrpo_jax.config import *\ndef get_config():\n    return Config()\n")
    arguments = ["--config", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "root")]
    assert launch.main(["--job", "compare", *arguments]) == 2
    assert "mine.py has no get_study(); define `def get_study() -> Study`" in capsys.readouterr().err
