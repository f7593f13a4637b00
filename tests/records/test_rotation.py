"""Samples stay within their room, and a resumed run ends with the files of one that was left alone."""

import json

import pytest
from rich.console import Console

from igrpo_jax.records import runlog
from igrpo_jax.records.rotation import Rotation, parts
from igrpo_jax.records.runlog import RunLog

TEXT = "x" * 40_000


def open_log(folder, completed=0):
    return RunLog(folder, steps=99, completed=completed, samples_mb=1, console=Console(record=True))


def write(folder, first: int, last: int) -> None:
    log = open_log(folder, completed=first - 1)
    for step in range(first, last + 1):
        log.samples(step, [{"question": TEXT[: 20_000 + 400 * step]}])
    log.close()


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parts(folder)}


def test_the_oldest_go_and_the_rest_is_whole(tmp_path):
    write(tmp_path, 1, 60)
    found = files(tmp_path)
    assert sum(map(len, found.values())) <= 1 << 20 and max(map(len, found.values())) <= 1 << 17
    steps = [json.loads(line)["step"] for data in found.values() for line in data.splitlines()]
    assert steps == list(range(steps[0], 61)) and 1 < steps[0] < 40 and len(found) > 4
    assert list(found)[-1] == f"samples-{json.loads(found[list(found)[-1]].splitlines()[0])['step']}.jsonl"


@pytest.mark.parametrize(("killed", "checkpoint"), [(60, 45), (60, 59), (33, 20), (10, 3)])
def test_a_resumed_run_ends_with_the_same_files(killed, checkpoint, tmp_path):
    (tmp_path / "alone").mkdir()
    write(tmp_path / "alone", 1, 70)
    (tmp_path / "killed").mkdir()
    write(tmp_path / "killed", 1, killed)
    with parts(tmp_path / "killed")[-1].open("a") as file:
        file.write('{"step": 99, "questi')
    write(tmp_path / "killed", checkpoint + 1, 70)
    assert files(tmp_path / "killed") == files(tmp_path / "alone")


def test_a_run_that_begins_again_keeps_no_file_but_the_first(tmp_path):
    write(tmp_path, 1, 30)
    assert len(parts(tmp_path)) > 2
    open_log(tmp_path).close()
    assert {name: len(data) for name, data in files(tmp_path).items()} == {"samples.jsonl": 0}


def test_without_a_limit_there_is_one_file(tmp_path):
    rotation = Rotation(tmp_path, 0)
    assert {rotation.place(step, 1 << 30).name for step in range(9)} == {"samples.jsonl"}


def test_other_files_are_no_samples(tmp_path):
    for name in ("samples.jsonl", "samples-7.jsonl", "samples-12.jsonl", "samples-x.jsonl", "samples.jsonl.9.part"):
        (tmp_path / name).write_text("")
    assert [path.name for path in parts(tmp_path)] == ["samples.jsonl", "samples-7.jsonl", "samples-12.jsonl"]


def test_a_terminal_shows_a_few_of_many_rows(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(runlog, "samples_table", lambda step, rows: shown.append(len(rows)) or "")
    log = RunLog(tmp_path, steps=10, completed=0, console=Console(force_terminal=True, record=True))
    log.samples(10, [{"question": "q"}] * 50)
    log.samples(10, [])
    log.close()
    assert shown == [3]
