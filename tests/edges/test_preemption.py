"""Leaving in time: what is heard, what is saved before, and who decides where several processes stop."""

import os
import signal
import threading
import time

import pytest

from igrpo_jax.edges import preemption
from igrpo_jax.edges.preemption import RESUME, Preempted, Stop
from sharding.processes import Processes
from tests.sharding.test_processes import Store

PATIENCE = 60
"""Seconds to wait for what happens at once on an idle machine."""


class Array:
    """Of an array only whether an update has taken it."""

    def __init__(self, deleted: bool = False):
        self.deleted = deleted

    def is_deleted(self) -> bool:
        return self.deleted


class Disk:
    """Checkpoints that remember what was saved."""

    def __init__(self):
        self.saved, self.waited = [], 0

    def save(self, step, state):
        self.saved.append(step)

    def wait(self):
        self.waited += 1


class Exit:
    """Remembers the status with which the process would have ended."""

    def __init__(self):
        self.status, self.happened = None, threading.Event()

    def __call__(self, status):
        self.status = status
        self.happened.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(preemption, "POLL", 0.05)
    monkeypatch.setattr(preemption, "LINGER", 0.0)
    monkeypatch.setattr(preemption, "ECHO", 0.2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    yield
    signal.signal(signal.SIGINT, before)


def until(true) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_loop_at_its_next_safe_point_and_what_is_completed_is_saved_once(number, capfd):
    exit, disk, stop = Exit(), Disk(), Stop(leave=Exit())
    with stop.listening(), stop.keeping(disk):
        stop.hold(6, [Array()], saved=True)
        stop.check()
        stop.hold(7, [Array()])
        os.kill(os.getpid(), number)
        until(lambda: stop.reason)
        with pytest.raises(Preempted):
            stop.check()
        stop.save_last()
        stop.save_last()
    assert disk.saved == [7] and exit.status is None
    assert f"{number.name}: saving and leaving within 30 s" in capfd.readouterr().err


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Stop().listening():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_a_checkpoint_has_is_not_saved_again_and_nothing_completed_is_nothing_saved(capfd):
    for step, said in ((4, "saved after step 4"), (0, "nothing to save")):
        disk, stop = Disk(), Stop()
        with stop.keeping(disk):
            stop.hold(step, [Array()], saved=True)
            stop.save_last()
        assert disk.saved == [] and said in capfd.readouterr().err


def test_where_nothing_is_to_be_saved_the_process_leaves_at_once():
    exit = Exit()
    with Stop(leave=exit).listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert exit.happened.wait(PATIENCE)
    assert exit.status == RESUME


def test_a_loop_that_hangs_is_left_with_its_last_state_saved(capfd):
    exit, disk = Exit(), Disk()
    stop = Stop(grace=1.0, leave=exit)
    with stop.listening(), stop.keeping(disk):
        stop.hold(3, [Array()])
        os.kill(os.getpid(), signal.SIGTERM)
        assert exit.happened.wait(PATIENCE)  # the main thread is busy with this
    assert (exit.status, disk.saved, disk.waited) == (RESUME, [3], 1)
    assert "saved after step 3, from beside what still runs" in capfd.readouterr().err


def test_a_state_that_is_being_updated_is_waited_for_and_not_saved():
    exit, disk, array = Exit(), Disk(), Array(deleted=True)
    stop = Stop(grace=1.0, leave=exit)
    with stop.listening(), stop.keeping(disk):
        stop.hold(3, [array])
        os.kill(os.getpid(), signal.SIGTERM)
        assert exit.happened.wait(PATIENCE)
    assert (exit.status, disk.saved) == (RESUME, [])
    exit, disk = Exit(), Disk()
    stop = Stop(grace=PATIENCE, leave=exit)
    with stop.listening(), stop.keeping(disk):
        stop.hold(3, [array])
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: stop.reason)
        stop._asked -= PATIENCE * 0.6
        until(lambda: stop._taken)
        stop.hold(4, [Array()])  # the update has ended
        assert exit.happened.wait(PATIENCE)
    assert (exit.status, disk.saved) == (RESUME, [4])


def test_a_save_that_hangs_is_left_when_the_grace_is_over(capfd):
    exit, disk = Exit(), Disk()
    over = threading.Event()
    disk.wait = lambda: over.wait(PATIENCE)
    stop = Stop(grace=1.0, leave=exit)
    with stop.listening(), stop.keeping(disk):
        stop.hold(3, [Array()])
        os.kill(os.getpid(), signal.SIGTERM)
        assert exit.happened.wait(PATIENCE / 2)
    over.set()
    assert exit.status == RESUME and "the grace of 1 s is over" in capfd.readouterr().err


def test_a_second_signal_leaves_at_once_but_not_the_echo_of_the_first():
    exit, disk = Exit(), Disk()
    stop = Stop(grace=10 * PATIENCE, leave=exit)
    with stop.listening(), stop.keeping(disk):
        stop.hold(3, [Array()])
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: stop.reason)
        os.kill(os.getpid(), signal.SIGTERM)
        assert not exit.happened.wait(2 * preemption.ECHO)
        os.kill(os.getpid(), signal.SIGINT)
        assert exit.happened.wait(PATIENCE)
    assert (exit.status, disk.saved) == (RESUME, [])


def test_a_deadline_asks_a_grace_earlier(capfd):
    stop = Stop(grace=1000, leave=Exit())
    with stop.listening(), stop.keeping(Disk()):
        stop.end_by(1000.2)
        until(lambda: stop.reason)
        with pytest.raises(Preempted, match="--max-hours"):
            stop.check()


def test_one_that_is_told_tells_all_and_all_stop_at_the_same_point(in_threads):
    store = Store()

    def loop(index):
        processes = Processes(index, 3, store)
        stop, disk = Stop(leave=Exit()), Disk()
        stop.join(processes)
        with stop.keeping(disk):
            for step in range(10_000):
                stop.hold(step, [Array()])
                if index == 1 and step == 5:
                    stop.ask("SIGTERM")
                elif reason := processes.told():  # what the thread of `listening` does
                    stop.ask(reason)
                try:
                    stop.check()
                except Preempted as told:
                    stop.save_last()
                    return disk.saved, "SIGTERM" in str(told)
        return None

    results = in_threads(3, loop)
    (first, *_), number = results[0][0], results[0][0][0]
    assert first >= 5 and all(saved == [number] for saved, _ in results)
    assert all(said for _, said in results[:2])


def test_processes_save_from_beside_only_what_all_have_completed(in_threads):
    def meeting(steps):
        store = Store()
        return in_threads(len(steps), lambda i: Processes(i, len(steps), store).meet(steps[i], 1.0))

    assert meeting([4, 4, 4]) == [True] * 3
    assert not all(meeting([4, 5]))
    assert Processes(0, 2, Store()).meet(4, 0.05) is False
