"""Whatever an item does to its process or to the socket between, it costs that item alone, and runs nothing here."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from igrpo_jax.rewards import GraderPool, Verdict
from igrpo_jax.rewards.workers import pool as pool_module
from igrpo_jax.rewards.workers import wire
from tests.hostile import jobs
from tests.rewards.test_pool import below_a_killed_trainer, gone, reasons

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a guard of orphans")


@pytest.fixture(scope="module")
def one():
    """A pool of one worker, so that all items go through the same socket."""
    with GraderPool(1, 3.0, 256) as pool:
        yield pool


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (jobs.half_a_header, "error"),
        (jobs.half_an_answer_and_silence, "timeout"),
        (jobs.oversized_header, "error"),
        (jobs.floods, "error"),
        (jobs.closes_everything, "error"),
        (jobs.stops_itself, "timeout"),
        (jobs.stops_its_guard, "timeout"),
        (jobs.ends_its_guard, "error"),
        (jobs.a_thread_that_exits, "error"),
    ],
)
def test_an_item_costs_itself_alone(one, job, reason):
    assert one.map(jobs.identity, [(1,)]) == [1]
    assert reasons(one.map(job, [(2,)])) == [reason]
    assert one.map(jobs.identity, [(3,), (4,), ("x" * 2**20,)]) == [3, 4, "x" * 2**20]


@pytest.mark.parametrize("job", [jobs.forks_and_returns, jobs.forks_unseen_and_returns, jobs.leaves_an_alarm])
def test_copies_and_alarms_do_not_reach_the_next_item(one, job):
    for value in range(10):
        assert one.map(job, [(value,)]) == [value]
        assert one.map(jobs.identity, [(100 + value,)]) == [100 + value]


def test_answers_of_copies_are_not_taken_for_the_next_items(one):
    assert one.map(jobs.leaves_a_writer, [(5,)]) == [5]
    assert one.map(jobs.slow_identity, [(6,), (7,)]) == [6, 7]
    results = one.map(jobs.several_answers, [(i,) for i in range(5)])
    assert all(result == i or result.reason == "error" for i, result in enumerate(results))
    assert one.map(jobs.identity, [(8,)]) == [8]


def test_nothing_that_a_worker_writes_is_unpickled(one, tmp_path):
    (verdict,) = one.map(jobs.crafted_pickle, [(str(tmp_path / "ran"),)])
    assert verdict.reason == "error" and "no JSON" in verdict.message
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1",
        b"[]",
        b"{}",
        b'{"value": 1, "more": 2}',
        b'{"verdict": [1, "exact", null]}',
        b'{"verdict": [1, "no such reason", null, ""]}',
        b'{"verdict": ["1", "exact", null, ""]}',
        b'{"verdict": [NaN, "exact", null, ""]}',
        b'{"verdict": [1, "exact", 5, ""]}',
        b"[" * 100_000,
        b"9" * 10_000,
        b"\xff\xfe",
    ],
)
def test_other_forms_are_no_answers(body):
    with pytest.raises(wire.NoAnswer):
        wire.decode(body)


def test_plain_data_and_verdicts_travel():
    for value in (None, True, 3, 0.1, "\ud800\x00é", [1, [None]], {"a": 1}):
        assert wire.decode(wire.encode(value)) == value
    verdict = wire.decode(wire.encode(Verdict(0.5, "partial", "x", "m")))
    assert (float(verdict), verdict.reason, verdict.parsed, verdict.message) == (0.5, "partial", "x", "m")


def test_a_megabyte_for_a_frozen_worker_waits_no_longer_than_the_deadline(one):
    (pid,) = one.map(os.getpid, [()])
    os.kill(pid, signal.SIGSTOP)
    assert reasons(one.map(jobs.identity, [("x" * 2**23,)])) == ["timeout"]
    assert one.map(jobs.identity, [(1,)]) == [1]


def test_the_item_of_a_worker_killed_from_outside_is_graded_again(one, tmp_path):
    assert one.map(jobs.dies_once, [(str(tmp_path / "once"),)]) == [7]
    assert one.map(jobs.told_to_leave, [(3,)]) == [3]
    (pid,) = one.map(os.getpid, [()])
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    assert one.map(jobs.slow_identity, [(i,) for i in range(3)]) == [0, 1, 2]


def test_another_thread_may_close_the_pool_while_it_grades():
    with GraderPool(1, 600.0, 256) as pool:
        raised = []

        def grade():
            try:
                pool.map(time.sleep, [(600,)])
            except pool_module.Closed as error:
                raised.append(error)

        thread = threading.Thread(target=grade)
        thread.start()
        time.sleep(0.5)
        pool.close()
        thread.join(60)
        assert raised and not thread.is_alive()
        assert pool.map(abs, [(-1,)]) == [1]


@linux
def test_what_workers_start_ends_with_them():
    with GraderPool(1, 20.0, 256) as pool:
        ((worker, *far),) = pool.map(jobs.starts_far_children, [()])
        os.kill(worker, signal.SIGKILL)
        assert all(map(gone, far))
        ((worker, *far),) = pool.map(jobs.starts_far_children, [()])
    assert all(map(gone, [worker, *far]))


@linux
@pytest.mark.parametrize("reaped", [True, False])
def test_a_guard_does_not_kill_who_has_the_number_of_a_reaped_worker(reaped):
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        code = f"from igrpo_jax.rewards.workers import guard; guard._end_all({stranger.pid}, reaped={reaped})"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        if reaped:
            assert stranger.poll() is None
        stranger.send_signal(signal.SIGTERM)
        assert stranger.wait(60) == (-signal.SIGTERM if reaped else -signal.SIGKILL)


@linux
def test_what_workers_start_ends_with_a_killed_trainer():
    below = below_a_killed_trainer("jobs.starts_far_children")
    assert len(below) == 3
    assert all(map(gone, below))
