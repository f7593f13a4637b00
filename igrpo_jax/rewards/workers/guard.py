"""The process above a grader: whatever the grader has started, in whichever session, ends with it or with the trainer.

On Linux orphans below a guard become its children, so it knows them all. Elsewhere only the grader's own process group
is ended.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from typing import NoReturn

_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36
_LOOK_SECONDS, _END_SECONDS = 2.0, 5.0


def adopt_orphans() -> None:
    """Makes processes below this one its children when those that started them end."""
    _prctl(_SET_SUBREAPER, 1)


def end_with(parent: int) -> None:
    """Asks Linux to kill this process when its parent ends, even while it computes."""
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent ended first")


def watch(worker: int, lifeline: int, trainer: int) -> NoReturn:
    """Waits for the worker's end, or the trainer's; then ends everything below, and itself as the worker has ended.

    Args:
      worker: its process id; a child.
      lifeline: a socket whose other end only the trainer holds.
      trainer: its process id.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(lifeline, 0)  # no events: a hang-up is always told
    poll.register(read, select.POLLIN)
    while (status := _reap(worker)) is None and os.getppid() == trainer:
        events = dict(poll.poll(1000 * _LOOK_SECONDS))
        if lifeline in events:
            break
        if read in events:
            os.read(read, 4096)
    _end_all(worker, reaped=status is not None)
    if status is not None and os.WIFSIGNALED(status):
        _die_of(os.WTERMSIG(status))
    os._exit(0 if status is None else os.waitstatus_to_exitcode(status))


def _reap(worker: int) -> int | None:
    """Takes leave of children that have ended; the worker's status if it is one of them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            status = ended[1] if ended[0] == worker else status
    return status


def _end_all(worker: int, *, reaped: bool) -> None:
    """Kills all below: the children of one that is killed become ours, until none is left.

    Once the worker is reaped another process may have its number, so only children are killed where they are known.
    """
    due = time.monotonic() + _END_SECONDS
    while time.monotonic() < due:
        children = _children()
        for child in {*(children or ()), *(() if reaped else (worker,))}:
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        if not reaped or children is None:
            with contextlib.suppress(OSError):
                os.killpg(worker, signal.SIGKILL)
        try:
            while ended := os.waitpid(-1, os.WNOHANG)[0]:
                reaped = reaped or ended == worker
        except ChildProcessError:
            return
        time.sleep(0.002)


def _children() -> list[int] | None:
    """The children of this process, which no other can be as long as it has not reaped them; None if unknown."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return None


def _die_of(number: int) -> None:
    """Ends this process by a signal, without a core file."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
