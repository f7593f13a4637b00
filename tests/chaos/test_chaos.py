"""A few blows of `make chaos` in every test run: nothing is lost, nobody is left, everyone ends as promised."""

import signal

import pytest

from tests.chaos.chaos import Blow, Child, Outcome, check, differences, endure, pair, strike_pair

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def alone(place):
    """A run that nobody disturbs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore it
    assert Child(place / "alone", place / "cache").ends().status == 0
    return place / "alone"


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


@pytest.mark.parametrize("kind", BLOWS)
def test_a_run_that_is_struck_again_and_again_loses_nothing(kind, place, alone):
    assert len(endure(BLOWS[kind], place / kind, place / "cache", alone)) >= 6


@pytest.mark.parametrize(("number", "victim"), [(signal.SIGTERM, 1), (signal.SIGKILL, 0)])
def test_two_processes_leave_together_and_resume_to_the_same_state(number, victim, place, alone):
    workdir = place / f"pair {number.name}"
    outcomes = strike_pair(Blow(number, "sampling", 12), victim, workdir, place / "cache")
    other = outcomes[1 - victim].output
    assert ("saved after step" if number == signal.SIGTERM else "another process of this run has ended") in other
    assert [child.ends().status for child in pair(workdir, place / "cache")] == [0, 0]
    both = place / "both"
    if not both.exists():
        assert [child.ends().status for child in pair(both, place / "cache")] == [0, 0]
    assert not differences(workdir, both)


def test_a_blow_that_is_not_survived_is_noticed():
    with pytest.raises(AssertionError):
        check(Blow(signal.SIGTERM, "save"), Outcome(-15, 1.0, ""))
    with pytest.raises(AssertionError):
        check(Blow(signal.SIGINT, "save"), Outcome(75, 100.0, ""))
