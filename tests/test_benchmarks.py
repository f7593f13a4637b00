"""What the contests hold equal for all that take part."""

from pathlib import Path

import jax
import pytest

from benchmarks import roofline
from benchmarks.contest import OURS, Contestant, environment
from models.presets import PRESETS


@pytest.mark.parametrize("home", [None, "tunix"])
def test_no_contestant_takes_a_whole_gpu(monkeypatch, home):
    who = Contestant(OURS, "ours", home, {"task": "sample", "threads": 2})
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.delenv(name, raising=False)
    assert environment(who, Path("logs"))[name] == "false"
    monkeypatch.setenv(name, "true")
    assert environment(who, Path("logs"))[name] == "true"


@pytest.mark.parametrize(("backend", "tokens", "ceiling"), [("cpu", [512], 7.0), ("gpu", [512, 4096], 9.0)])
def test_an_updates_ceiling_is_the_best_of_several_sizes(monkeypatch, backend, tokens, ceiling):
    measured = []

    def rates(config, rows, dtype):
        measured.extend(rows)
        return {count: roofline.Rate({8: 3.0, 512: 7.0, 4096: 9.0}[count], 1.0, 1.0) for count in rows}

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(roofline, "rates", rates)
    monkeypatch.setattr(roofline, "bandwidth", lambda: (2.0, 1.0))
    found = roofline.ceilings.__wrapped__(PRESETS["tiny"], 8, "float32")
    assert measured == [8, *tokens]
    assert found == roofline.Ceilings(2.0, 1.0, 3.0, ceiling)
