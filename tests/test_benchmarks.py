"""What the contests hold equal for all that take part."""

from pathlib import Path

import pytest

from benchmarks.contest import OURS, Contestant, environment


@pytest.mark.parametrize("home", [None, "tunix"])
def test_no_contestant_takes_a_whole_gpu(monkeypatch, home):
    who = Contestant(OURS, "ours", home, {"task": "sample", "threads": 2})
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.delenv(name, raising=False)
    assert environment(who, Path("logs"))[name] == "false"
    monkeypatch.setenv(name, "true")
    assert environment(who, Path("logs"))[name] == "true"
