"""Processes that are started, told to leave and shared out."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from igrpo_jax.study.processes import Children, places, visible_gpus

WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


def script(folder, text, name="child.py"):
    (folder / name).write_text(text)
    return [str(folder / name)]


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_processes_get_places_and_logs_and_give_the_places_back(tmp_path):
    say = script(tmp_path, "import os, sys; print(os.environ['PLACE']); sys.exit(int(sys.argv[1]))")
    children = Children([{"PLACE": "first"}, {"PLACE": "second"}])
    for status in (0, 3):
        children.start(status, [*say, str(status)], tmp_path / f"{status}.log")
    assert not children.room
    ended = dict(children.ended())
    until(lambda: ended.update(children.ended()) or len(ended) == 2)
    assert ended == {0: 0, 3: 3} and children.room and not children.running
    assert [(tmp_path / f"{status}.log").read_text() for status in (0, 3)] == ["first\n", "second\n"]


def test_a_signal_is_handed_on_and_waited_for(tmp_path):
    children = Children([{}, {}])
    with children.hearing():
        for name in "ab":
            children.start(name, script(tmp_path, WAITS), tmp_path / f"{name}.log")
        until(lambda: all((tmp_path / f"{name}.log").read_text() for name in "ab"))
        os.kill(os.getpid(), signal.SIGTERM)
        ended = dict(children.ended())
        until(lambda: ended.update(children.ended()) or len(ended) == 2)
    assert ended == {"a": 75, "b": 75} and children.told == "SIGTERM" and not children.room
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process outlives its parent, and keeps its lease")
def test_a_process_does_not_outlive_a_parent_that_is_killed(tmp_path):
    parent = f"""
import sys, time
from pathlib import Path
from igrpo_jax.study.processes import Children
children = Children([{{}}])
children.start("a", {script(tmp_path, WAITS)}, Path({str(tmp_path / "log")!r}))
print(children._running["a"][0].pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        number = int(process.stdout.readline())
        until(lambda: (tmp_path / "log").read_text())
        process.kill()
    stat = Path(f"/proc/{number}/stat")
    until(lambda: not stat.exists() or " Z " in stat.read_text())  # gone, or only waiting to be counted as gone


def test_gpus_are_shared_equally():
    four = lambda: ["0", "1", "4", "GPU-5"]
    assert places(1, four) == [{}]
    assert places(2, four) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "4,GPU-5"}]
    assert places(3, list) == [{}, {}, {}]
    with pytest.raises(ValueError, match="--parallel 3 does not divide 4 GPUs; choose one of 1, 2, 4"):
        places(3, four)
    with pytest.raises(ValueError, match="--parallel is 0; it must be at least 1"):
        places(0, four)


def test_gpus_are_found_without_taking_hold_of_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-x")
    assert [name.strip() for name in visible_gpus()] == ["2", "GPU-x"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA A (UUID: GPU-1)'\necho 'GPU 1: NVIDIA A (UUID: GPU-2)'\necho '  MIG'\n"
    )
    tool.chmod(0o755)
    assert visible_gpus() == ["0", "1"]
