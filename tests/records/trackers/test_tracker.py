"""A tracker that raises, crashes, hangs, prints or is not there stops nothing; here its package is a stand-in."""

import json
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

import launch
from igrpo_jax.records.runlog import RunLog
from igrpo_jax.records.trackers.tracker import Tracker, identity_of

STAND_IN = """
import json, os, sys, time
bad = os.environ["STAND_IN"]

class Run:
    def __init__(self, **options):
        print("wandb: hello")
        self.told = open(os.environ["TOLD"], "a")
        options["dir"] = str(options["dir"])
        self.write(options)
    def write(self, what):
        self.told.write(json.dumps(what) + "\\n")
        self.told.flush()
    def log(self, values, step):
        if bad == "raises at a record":
            raise RuntimeError("no\\x1b[2J such metric")
        if bad == "crashes":
            os.kill(os.getpid(), 11)
        if bad == "leaves":
            os._exit(0)
        if bad == "hangs at a record":
            time.sleep(600)
        self.write([step, values])
    def finish(self):
        if bad == "hangs at the end":
            time.sleep(600)
        self.write("finished")

def init(**options):
    if bad == "raises at the beginning":
        raise RuntimeError("no API key configured")
    if bad == "hangs at the beginning":
        time.sleep(600)
    return Run(**options)
"""
HANGS = ("hangs at the beginning", "hangs at a record", "hangs at the end")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """`stand_in("crashes")` puts a package `wandb` in place that does so; gives the file with what it was told."""

    def make(bad: str) -> Path:
        package = tmp_path / "packages" / "wandb"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(STAND_IN)
        monkeypatch.syspath_prepend(str(package.parent))
        monkeypatch.setenv("STAND_IN", bad)
        monkeypatch.setenv("TOLD", str(tmp_path / "told.jsonl"))
        return tmp_path / "told.jsonl"

    return make


def told_to(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_tracker_gets_the_config_and_all_metrics(stand_in, tmp_path):
    told, said = stand_in("nothing"), []
    workdir = tmp_path / "run"
    workdir.mkdir()
    tracker = Tracker("wandb", workdir, {"optim.learning_rate": 1e-5}, resumed=False, say=said.append)
    for step in range(3):
        tracker.log(step, {"reward": step / 2, "eval/a/avg@8": 0.5})
    tracker.close()
    begun, *records, end = told_to(told)
    identity = json.loads((workdir / "tracker.json").read_text())["identity"]
    assert begun == {
        "project": "igrpo_jax", "id": identity, "name": "run", "config": {"optim.learning_rate": 1e-5},
        "dir": str(workdir), "resume": "allow",
    }  # fmt: skip
    assert records == [[step, {"reward": step / 2, "eval/a/avg@8": 0.5}] for step in range(3)] and end == "finished"
    assert not said and "wandb: hello" in (workdir / "tracker.log").read_text()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("raises at the beginning", "no API key configured"),
        ("raises at a record", "no\\x1b[2J such metric"),
        ("crashes", "wandb: hello"),
        ("leaves", "wandb: hello"),
        *((hanging, "was not done 1 s after the end") for hanging in HANGS),
    ],
)
def test_a_tracker_that_fails_says_so_once_and_stops_nothing(stand_in, tmp_path, bad, words):
    stand_in(bad)
    console = Console(width=1000, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    log = RunLog(
        tmp_path, steps=9, completed=0, console=console,
        tracker=lambda say: Tracker("wandb", tmp_path, {}, resumed=False, say=say, bound=4, finish=1.0),
    )  # fmt: skip
    began, much = time.perf_counter(), {"a long name " * 5000: 1.0}
    for step in range(1, 10):
        log.metrics(step, {"reward": 1.0} | much)
        time.sleep(0.05 if bad in HANGS else 0.3)
    assert time.perf_counter() - began < 5
    log.close()
    console.file.close()
    assert time.perf_counter() - began < 15
    text = console.export_text()
    assert text.count("has failed") == 1 and words in text and "\x1b[2J" not in text
    assert text.count("records behind") == (bad in HANGS[:2])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 9


def test_records_with_the_same_step_and_numbers_that_are_none(stand_in, tmp_path):
    """What is no number in a record is left out, as in TensorBoard."""
    told = stand_in("nothing")
    log = RunLog(
        tmp_path, steps=1, completed=0, console=Console(quiet=True),
        tracker=lambda say: Tracker("wandb", tmp_path, {}, resumed=False, say=say),
    )  # fmt: skip
    log.metrics(1, {"reward": 0.5, "loss": float("nan")})
    log.metrics(1, {"eval/a/avg@2": 1.0})
    log.close()
    assert told_to(told)[1:] == [[1, {"reward": 0.5}], [1, {"eval/a/avg@2": 1.0}], "finished"]


def test_a_resumed_run_goes_on_under_its_name(tmp_path):
    first = identity_of(tmp_path, resumed=False)
    assert identity_of(tmp_path, resumed=True) == first
    assert identity_of(tmp_path, resumed=False) != first
    for damaged in ("", "[]", '{"identity": 3}', '{"identity": "../x"}'):
        (tmp_path / "tracker.json").write_text(damaged)
        assert identity_of(tmp_path, resumed=True).isalnum()


def test_a_tracker_that_is_not_installed_is_refused_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("IGRPO_TRACEBACK", raising=False)
    (tmp_path / "mlflow").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))  # a folder that MLflow might have left
    arguments = ["--config", "smoke.py", "--mesh", "8x1", "--workdir", str(tmp_path / "run"), "--track", "mlflow"]
    assert launch.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: --track mlflow needs its package; pip install 'igrpo-jax[mlflow]'")
    assert not (tmp_path / "run").exists()
