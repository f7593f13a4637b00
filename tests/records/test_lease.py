"""One live run a directory."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from igrpo_jax.records.lease import NAME, _me, held, lease, lives


def holder(folder, *, beat=0.05, ignore=str, dead=1.0):
    return lease(folder, say=ignore, beat=beat, dead=dead)


def write(folder, **changes):
    record = _me() | {"since": "2026-01-02T03:04:05+00:00", "token": "theirs"} | changes
    (folder / NAME).write_text(json.dumps(record))
    return record


def test_a_second_live_run_is_refused_with_who_and_since_when(tmp_path):
    with holder(tmp_path / "run"):
        record = json.loads((tmp_path / "run" / NAME).read_text())
        with (
            pytest.raises(
                ValueError, match=rf"a run is writing here: .* process {os.getpid()} on \S+ since 20"
            ) as error,
            holder(tmp_path / "run"),
        ):
            pass
        assert record["since"] in str(error.value) and "\n" not in str(error.value)
        assert json.loads((tmp_path / "run" / NAME).read_text()) == record
        assert held(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    assert not held(tmp_path / "run") and not held(tmp_path / "nowhere")
    with holder(tmp_path / "run"):
        pass


ENDED = """
import sys, time
from igrpo_jax.records.lease import lease
from pathlib import Path
with lease(Path(sys.argv[1]), say=print, beat=0.05):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lease_of_a_killed_process_is_taken_over_at_once_also_before_it_is_reaped(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ENDED, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"process {process.pid} "), holder(tmp_path):
        pass
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not held(tmp_path)
    said, started = [], time.monotonic()
    with lease(tmp_path, say=said.append):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
    assert time.monotonic() - started < 60 and len(said) == 1 and f"process {process.pid} on" in said[0]
    process.wait()
    process.stdout.close()


def test_another_process_of_the_same_number_is_not_the_holder(tmp_path):
    write(tmp_path, started="1")
    assert not held(tmp_path)
    with holder(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["token"] != "theirs"


def test_a_holder_elsewhere_lives_while_its_file_is_touched(tmp_path):
    write(tmp_path, place="elsewhere", host="node7")
    said = []
    over = threading.Event()

    def touch():
        while not over.wait(0.02):
            os.utime(tmp_path / NAME)

    touching = threading.Thread(target=touch)
    touching.start()
    try:
        with (
            pytest.raises(ValueError, match=r"process \d+ on node7 since 2026-01-02"),
            holder(tmp_path, ignore=said.append, dead=600.0),
        ):
            pass
    finally:
        over.set()
        touching.join()
    assert len(said) == 1 and "on another machine" in said[0]
    with holder(tmp_path, ignore=said.append):
        assert "which has ended" in said[-1]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1e400}'])
def test_a_damaged_lease_counts_until_it_is_old(text, tmp_path):
    (tmp_path / NAME).write_text(text)
    assert not held(tmp_path)
    started = time.monotonic()
    with holder(tmp_path):
        assert time.monotonic() - started > 0.5
    os.utime(tmp_path, None)


def test_only_one_of_many_takes_over(tmp_path, in_threads):
    write(tmp_path, started="1")
    holders, refused, all_refused = [], [], threading.Event()

    def one(index):
        try:
            with lease(tmp_path, say=str, beat=0.05):
                holders.append(index)
                all_refused.wait(15)
        except ValueError:
            refused.append(index)
            if len(refused) == 7:
                all_refused.set()
            raise

    results = in_threads(8, one)
    assert len(holders) == 1 and sum(isinstance(result, ValueError) for result in results) == 7
    assert not list(tmp_path.iterdir())


def test_a_process_that_stood_still_while_another_took_over_ends(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ENDED, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    write(tmp_path, pid=1)
    assert process.wait(60) == 1 and "was taken over by process 1 on" in process.stdout.read()
    assert json.loads((tmp_path / NAME).read_text())["token"] == "theirs"
    process.stdout.close()


def test_whether_a_run_lives_is_told_without_waiting(tmp_path):
    assert not lives(tmp_path)
    with lease(tmp_path, say=print):
        assert lives(tmp_path)
        path = tmp_path / NAME
        elsewhere = json.loads(path.read_text())
        os.utime(path, (0, 0))
        assert lives(tmp_path)
        path.write_text(json.dumps(elsewhere | {"started": "another process"}))
        assert not lives(tmp_path)
        path.write_text(json.dumps(elsewhere | {"place": "another machine"}))
        assert lives(tmp_path)
        os.utime(path, (0, 0))
        assert not lives(tmp_path)
        path.write_text(json.dumps(elsewhere))
    assert not lives(tmp_path)
