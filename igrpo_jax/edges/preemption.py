"""Leaving in time: a signal or a deadline is a request to stop, and what has been completed is saved before it is met.

The training loop asks at safe points whether it is to leave, and says what it has completed. A thread beside it hears
signals at once, whatever the loop is doing, and sees to it that the process has left when its grace is over.
"""

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from igrpo_jax.edges.printable import printable

RESUME = 75
"""Exit status of a run that was asked to leave and goes on when it is started again: EX_TEMPFAIL of sysexits.h."""

GRACE = 30.0
"""Seconds from a request to the exit, at most."""

TAKEOVER = 0.5
"""Share of the grace after which the thread saves by itself: the loop has not come to a safe point."""

POLL = 0.5
"""Seconds between looks at the clock, and at what other processes have been told."""

ECHO = 1.0
"""Seconds within which a second signal is taken for the first one again: some tools send each one twice."""

LINGER = 3.0
"""Seconds that a process of several stays before it is gone, so that the others hear why."""

CLOSING = 1.0
"""Seconds for what is to be closed before the process is gone."""

FAILED = 2
"""Exit status of a run that could not save what it had completed: a person must make room."""


class Preempted(Exception):
    """The run is to leave; raised at safe points only, where nothing but work in progress is lost."""


@runtime_checkable
class Others(Protocol):
    """The other processes of a run, see `sharding.processes.Processes`."""

    count: int

    def agree(self, value: int) -> int:
        """The first process's value, in all of them."""
        ...

    def tell(self, reason: str) -> None:
        """Lets all processes know that they are to leave; from any thread, as often as one likes."""
        ...

    def told(self) -> str:
        """What some process has told all, nothing so far."""
        ...

    def completed(self, step: int) -> None:
        """Says after which step this process is about to save before it leaves."""
        ...

    def meet(self, step: int, seconds: float) -> bool:
        """Whether all processes say that step within so many seconds."""
        ...


class Stop:
    """Whether the run is to leave, and what must be saved before it does.

    Attributes:
      grace: seconds from a request to the exit, at most.
      reason: why the run is to leave; empty as long as it is not.
    """

    def __init__(self, *, grace: float | int = GRACE, leave: Callable[[int], None] = os._exit):
        """Nothing is asked yet, and nobody listens: see `listening`.

        Args:
          grace: see above.
          leave: ends the process with a status, whatever its other threads do.
        """
        self.grace, self.reason = grace, ""
        self._leave = leave
        self._others: Others | None = None
        self._asked, self._ends = math.inf, math.inf  # when: of the monotonic clock
        self._checkpoints: Any = None
        self._held: tuple[int, Any] | None = None
        self._saved: int | None = None
        self._secured: tuple[int, str | None] | None = None
        self._saving = threading.Lock()
        self._leaving = threading.Event()
        self._taken = False
        self._exits = contextlib.ExitStack()

    def join(self, others: Others) -> None:
        """From here on what one process is told all are told."""
        self._others = others if others.count > 1 else None

    def end_by(self, seconds: float | int) -> None:
        """Asks the run to leave so early that it is gone in so many seconds."""
        self._ends = time.monotonic() + max(seconds - self.grace, 0.0)

    def at_exit(self, action: Callable[[], object]) -> None:
        """Has something closed before the process is ended from beside the loop; the last one first, in a second."""
        self._exits.callback(action)

    def check(self) -> None:
        """A safe point: raises `Preempted` if the run is to leave, in all processes at the same point.

        The processes must call it in the same order.
        """
        asked = bool(self.reason)
        if self._others is not None:
            asked = bool(self._others.agree(int(asked)))
        if asked:
            self.ask("another process is leaving")
            raise Preempted(self.reason)

    def ask(self, reason: str) -> None:
        """Asks the run to leave; only the first request counts."""
        if self.reason:
            return
        self._asked, self.reason = time.monotonic(), reason
        if self._others is not None:
            self._others.tell(reason)
        if self._checkpoints is None:
            _say(f"{reason}: leaving; there is nothing to save")
        else:
            _say(f"{reason}: saving and leaving within {self.grace:g} s; a second signal leaves at once")

    @contextmanager
    def keeping(self, checkpoints: Any) -> Iterator[None]:
        """Inside, what has been completed is saved before the process leaves; outside it leaves as soon as asked.

        Args:
          checkpoints: those of the run, see `igrpo_jax.records.checkpoint.Checkpoints`.
        """
        self._checkpoints = checkpoints
        try:
            yield
        finally:
            self._checkpoints = None
            self._held = None

    def hold(self, step: int, state: Any, *, saved: bool = False) -> None:
        """Says what the run has completed: the state after so many steps, and whether a checkpoint has it already."""
        self._held = (step, state)
        if saved:
            self._saved = step

    def save(self) -> int | None:
        """Saves what is held unless a checkpoint has it; the number of its steps, None where nothing is held."""
        with self._saving:
            return None if self._held is None else self._save(*self._held)

    def _save(self, step: int, state: Any) -> int:
        if step != self._saved:
            self._checkpoints.save(step, state)
            self._saved = step
        return step

    def _secure(self, held: tuple[int, Any]) -> str | None:
        """Has a state on disk, once, whichever thread comes first; why it is not."""
        with self._saving:
            if self._secured is None or self._secured[0] != held[0]:
                self._save(*held)
                self._secured = held[0], self._checkpoints.finish()
            return self._secured[1]

    def save_last(self) -> None:
        """Called where `Preempted` has ended the loop: saves what was completed and says so once it is on disk.

        Raises:
          ValueError: it could not be saved.
        """
        self._leaving.set()
        held = self._held
        if held is not None and self._others is not None:
            self._others.completed(held[0])
        if held is not None and (failure := self._secure(held)):
            raise ValueError(f"{failure}, the last one before leaving; make room and give the same command again")
        _say(
            f"saved after step {held[0]}" if held and held[0] else "no step was completed, so there is nothing to save"
        )

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Inside, SIGTERM, SIGINT, the deadline and the other processes ask the run to leave."""
        if threading.current_thread() is not threading.main_thread():
            yield self  # Python delivers signals to the main thread only
            return
        ours, theirs = os.pipe()
        for end in (ours, theirs):
            os.set_blocking(end, False)
        # The byte is written by the signal itself, so the thread hears it even while the main thread compiles.
        earlier_end = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number, handler in earlier.items():
            if handler is not signal.SIG_IGN:  # a shell's background job is not meant by Ctrl-C
                signal.signal(number, lambda *_: None)
        thread = threading.Thread(target=self._listen, args=(ours,), name="preemption", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(earlier_end)
            os.write(theirs, b"\0")
            thread.join()
            os.close(ours)
            os.close(theirs)

    def _listen(self, pipe: int) -> None:
        """The thread: hears signals as bytes of the pipe and looks at the clock, until it reads a 0."""
        while True:
            readable, _, _ = select.select([pipe], [], [], POLL / 5 if self.reason else POLL)
            for number in os.read(pipe, 64) if readable else b"":
                if number == 0:
                    return
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._signal(signal.Signals(number).name)
            if not self.reason:
                if time.monotonic() >= self._ends:
                    self.ask("the time that --max-hours allows is over")
                elif self._others is not None and (reason := self._others.told()):
                    self.ask(reason)
            if self.reason:
                self._hurry()

    def _signal(self, name: str) -> None:
        if not self.reason:
            self.ask(name)
        elif time.monotonic() - self._asked > ECHO:
            _say(f"{name} again: leaving at once; a save that is in progress is given up, the one before it is whole")
            self._end()

    def _hurry(self) -> None:
        """Leaves where nothing is to be saved or the grace is over; saves from here where the loop does not answer."""
        since = time.monotonic() - self._asked
        if self._checkpoints is None and not self._leaving.is_set():
            if self._others is not None:
                time.sleep(LINGER)
            self._end()
        elif since >= self.grace:
            _say(f"the grace of {self.grace:g} s is over; the run resumes from its last checkpoint")
            self._end()
        elif since >= self.grace * TAKEOVER and not self._leaving.is_set() and not self._taken:
            self._taken = True
            threading.Thread(target=self._take_over, name="last save", daemon=True).start()

    def _take_over(self) -> None:
        """Saves from beside a loop that hangs or is busy, and ends the process."""
        import jax

        until, status = self._asked + self.grace - POLL, RESUME
        said = "no state came in time that all have completed; the run resumes from its last checkpoint"
        while (held := self._held) and (left := until - time.monotonic()) > 0 and not self._leaving.is_set():
            step, state = held
            # While it is updated there is no state, and others may be a step behind; the next one comes.
            taken = any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
            if taken or (self._others is not None and not self._others.meet(step, left)):
                time.sleep(POLL / 5)
                continue
            try:
                failure = self._secure(held)
            except Exception as error:  # whatever it is, the process leaves
                failure = f"step {step} could not be saved ({next(iter(str(error).splitlines()), '')[:200]})"
            said = f"saved after step {step}, from beside what still runs"
            if failure:
                said, status = f"error: {failure}, from beside what still runs; the last checkpoint is whole", FAILED
            break
        if not self._leaving.is_set():
            _say(said)
            self._end(status)

    def _close(self) -> None:
        try:
            self._exits.close()
        except Exception as error:
            _say(f"warning: not all was closed ({next(iter(str(error).splitlines()), '')[:200]})")

    def _end(self, status: int = RESUME) -> None:
        closing = threading.Thread(target=self._close, name="closing", daemon=True)
        closing.start()
        closing.join(CLOSING)
        leave(status, ending=self._leave)


def leave(status: int, *, ending: Callable[[int], None] = os._exit) -> None:
    """Ends the process at once, whatever its threads do; what was printed gets a second to be written."""
    writing = threading.Thread(target=lambda: (sys.stdout.flush(), sys.stderr.flush()), daemon=True)
    writing.start()
    writing.join(1.0)
    if os.isatty(1):
        os.write(1, b"\x1b[?25h")  # a progress bar hides the cursor
    ending(status)


def end(status: int) -> None:
    """The end of a job: at once unless it is 0, and a signal that comes now changes the status no more.

    What hangs in a thread, a reward say, would keep Python from ending.
    """
    if status:
        leave(status)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leave(status))


def leave_together(status: int) -> None:
    """Ends a process of several at once: an orderly exit would wait for the others, which wait for this one."""
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        time.sleep(LINGER)  # without process 0 the others die, before they can say what they know
        leave(status)


def _say(text: str) -> None:
    """One line on stderr, straight to the file: another thread may be inside `print`."""
    with contextlib.suppress(OSError):
        os.write(2, f"{printable(text)}\n".encode())
