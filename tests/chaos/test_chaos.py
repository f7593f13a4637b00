"""A few blows of `make chaos` among the slow tests: nothing is lost, nobody is left, everyone ends as promised."""

import signal

import pytest

from tests.chaos.chaos import Blow, Outcome, check, differences, endure, pair, strike_pair

slow = pytest.mark.slow


BLOWS = {
    "killed": [
        Blow(signal.SIGKILL, "compile", delay=0.2),
        Blow(signal.SIGKILL, "update", 2),
        Blow(signal.SIGKILL, "save", delay=0.02),
        Blow(signal.SIGKILL, "sampling", 9),
        Blow(signal.SIGKILL, "evaluation", 1),
        Blow(signal.SIGKILL, "export"),
    ],
    "told": [
        Blow(signal.SIGTERM, "load"),
        Blow(signal.SIGINT, "compile", delay=0.1),
        Blow(signal.SIGTERM, "update", 2),
        Blow(signal.SIGINT, "sampling", 8),
        Blow(signal.SIGTERM, "save", delay=0.02),
        Blow(signal.SIGINT, "evaluation"),
        Blow(signal.SIGTERM, "export"),
    ],
}


@slow
@pytest.mark.parametrize("kind", BLOWS)
def test_a_run_that_is_struck_again_and_again_loses_nothing(kind, place, alone):
    assert len(endure(BLOWS[kind], place / kind, place / "cache", alone)) >= 6


@slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_two_processes_leave_together_and_resume_to_the_same_state(number, victim, place):
    workdir, both = place / f"pair {number.name} {victim}", place / "both"
    strike_pair(number, victim, workdir, place / "cache")
    assert [child.ends().status for child in pair(workdir, place / "cache")] == [0, 0]
    if not both.exists():
        assert [child.ends().status for child in pair(both, place / "cache")] == [0, 0]
    assert not differences(workdir, both)


SAID = "step 4/4"
"""What a run prints that has made its last step."""


@pytest.mark.parametrize(
    ("number", "status", "seconds", "output"),
    [
        (signal.SIGTERM, -15, 1.0, SAID),
        (signal.SIGINT, 75, 100.0, ""),
        (signal.SIGTERM, 75, 1.0, "Traceback"),
        (signal.SIGTERM, 0, 1.0, "step 3/4"),
        (signal.SIGTERM, 0, 1.0, "step 40"),
        (signal.SIGKILL, 0, 1.0, SAID),
        (signal.SIGKILL, 75, 1.0, SAID),
        (signal.SIGKILL, 2, None, ""),
    ],
)
def test_a_blow_that_is_not_survived_is_noticed(number, status, seconds, output):
    with pytest.raises(AssertionError):
        check(Blow(number, "save"), Outcome(status, seconds, output))


@pytest.mark.parametrize(
    ("number", "status", "seconds"),
    [(signal.SIGTERM, 75, 1.0), (signal.SIGTERM, 0, 1.0), (signal.SIGKILL, -9, 1.0), (signal.SIGKILL, 0, None)],
)
def test_a_blow_that_is_survived_is_none(number, status, seconds):
    check(Blow(number, "save"), Outcome(status, seconds, SAID))
