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
    """Checkpoints that remember what was saved; `failure` is why nothing of it is on disk."""

    def __init__(self, failure=None):
        self.saved, self.failure, self.finished = [], failure, 0

    def save(self, step, state):
        self.saved.append(step)

    def finish(self):
        self.finished += 1
        return self.failure


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
    exit, disk = Exit(), Disk()
    stop = Stop(leave=exit)
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
    assert disk.saved == [7] and disk.finished == 1 and not exit.happened.is_set()
    assert f"{number.name}: saving and leaving within 30 s" in capfd.readouterr().err


def raise_it(error):
    raise error


FULL = "step 3 could not be saved (disk full)"


def test_a_last_save_that_fails_is_not_said_to_be_saved(capfd):
    disk, stop = Disk(FULL), Stop()
    with stop.keeping(disk):
        stop.hold(3, [Array()])
        with pytest.raises(
            ValueError, match=r"step 3 could not be saved \(disk full\), the last one before leaving; make"
        ):
            stop.save_last()
    assert "saved after" not in capfd.readouterr().err


@pytest.mark.parametrize("failure", [FULL, OSError("disk full\nand more")])
def test_a_last_save_that_fails_beside_a_loop_that_hangs_ends_with_another_status(failure, capfd):
    exit, disk = Exit(), Disk(failure)
    if isinstance(failure, OSError):
        disk.save = lambda step, state: raise_it(failure)
    stop = Stop(grace=1.0, leave=exit)
    with stop.listening(), stop.keeping(disk):
        stop.hold(3, [Array()])
        os.kill(os.getpid(), signal.SIGTERM)
        assert exit.happened.wait(PATIENCE)
    said = capfd.readouterr().err
    assert exit.status == 2 and "error: step 3 could not be saved (disk full), from beside" in said
    assert "saved after" not in said and "and more" not in said


def test_what_is_open_is_closed_before_the_process_is_gone_the_last_one_first(capfd):
    closed, exit = [], Exit()
    stop = Stop(leave=lambda status: (closed.append("gone"), exit(status)))
    stop.at_exit(lambda: closed.append("lease"))
    stop.at_exit(lambda: 1 / 0)
    stop.at_exit(lambda: closed.append("records"))
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert exit.happened.wait(PATIENCE)
    assert closed == ["records", "lease", "gone"]
    assert "warning: not all was closed (division by zero)" in capfd.readouterr().err


def test_what_does_not_close_holds_nobody_up():
    over, exit = threading.Event(), Exit()
    stop = Stop(leave=exit)
    stop.at_exit(lambda: over.wait(10 * PATIENCE))
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert exit.happened.wait(PATIENCE)
    over.set()
    assert exit.status == RESUME


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
    assert (exit.status, disk.saved, disk.finished) == (RESUME, [3], 1)
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
    disk.finish = lambda: over.wait(PATIENCE)
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
    assert meeting([4, 5]) == [False, False]
    assert Processes(0, 2, Store()).meet(4, 0.05) is False


class Meeting:
    """Other processes that are at other steps when they are first asked, and say so when `asked` has been called."""

    count = 2

    def __init__(self, answers, asked=lambda step: None):
        self.answers, self.asked, self.steps = list(answers), asked, []

    def agree(self, value):
        return value

    def tell(self, reason):
        pass

    def told(self):
        return ""

    def completed(self, step):
        pass

    def meet(self, step, seconds):
        self.steps.append(step)
        self.asked(step)
        return self.answers.pop(0)


def test_a_thread_that_saves_beside_the_loop_waits_for_the_others_and_saves_what_they_met_on(capfd):
    exit, disk = Exit(), Disk()
    stop = Stop(grace=PATIENCE, leave=exit)
    others = Meeting([False, False, True], asked=lambda step: stop.hold(step + 1, [Array()]))
    stop.join(others)
    with stop.listening(), stop.keeping(disk):
        stop.hold(3, [Array()])
        stop.ask("SIGTERM")
        stop._asked -= PATIENCE * 0.6
        assert exit.happened.wait(PATIENCE)
    # At 5 all have met; by then this process holds 6.
    assert others.steps == [3, 4, 5] and disk.saved == [5] and exit.status == RESUME
    assert "saved after step 5" in capfd.readouterr().err


def test_processes_that_never_come_to_the_same_step_save_nothing(capfd):
    exit, disk = Exit(), Disk()
    stop = Stop(grace=1.0, leave=exit)
    stop.join(Meeting([False] * 1000))
    with stop.listening(), stop.keeping(disk):
        stop.hold(3, [Array()])
        stop.ask("SIGTERM")
        assert exit.happened.wait(PATIENCE)
    assert (exit.status, disk.saved) == (RESUME, []) and "saved after" not in capfd.readouterr().err
