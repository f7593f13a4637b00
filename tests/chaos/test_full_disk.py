"""A disk that is full for three seconds or for good, at five moments of a run: nothing of what was written is lost."""

import re

import pytest

from tests.chaos.chaos import Child, differences

pytestmark = pytest.mark.slow

MOMENTS = {
    "config.json": ("claim", 1, 0),
    "compiled programs": ("compile", 1, 0),
    "records": ("records", 3, 2),
    "checkpoint": ("save", 2, 2),
    "export": ("export", 1, 4),
}
"""The phase of tests/chaos/child.py, the how manieth of its kind, and the step of the newest checkpoint by then."""


@pytest.mark.parametrize("seconds", [3, 0], ids=["three seconds", "for good"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_on_a_full_disk_goes_on_or_stops_in_one_line_and_ends_the_same(moment, seconds, place, alone, small_disk):
    phase, number, step = MOMENTS[moment]
    workdir, cache = small_disk / "run", place / "cache"
    if moment == "compiled programs":
        cache = small_disk / "cache"
    outcome = Child(workdir, cache, full=f"{small_disk}:{phase}:{number}:{seconds}").ends()
    assert outcome.status in (0, 2) and "Traceback" not in outcome.output, outcome
    assert len(re.findall("^error: ", outcome.output, re.MULTILINE)) == (outcome.status == 2), outcome
    if seconds == 0:
        assert outcome.status == 2 and "No space left on device" in outcome.output, outcome
    (small_disk / "filling").unlink(missing_ok=True)  # there is room again, also where the run did not wait for it
    if outcome.status == 2:
        again = Child(workdir, place / "cache").ends()
        assert again.status == 0, again
        resumed = re.findall(r"after step (\d+)$", again.output, re.MULTILINE)
        assert (int(resumed[0]) if resumed else 0) >= step, (outcome, again)
    assert not differences(workdir, alone), (differences(workdir, alone), outcome)
