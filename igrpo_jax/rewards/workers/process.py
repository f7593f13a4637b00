"""The trainer's end of one grader process: nothing here waits for the process but its end."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

from igrpo_jax.rewards.verdict import Verdict
from igrpo_jax.rewards.workers import wire

_LEAVE_SECONDS = 2.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Result(NamedTuple):
    """What came of a task.

    Attributes:
      value: the result, or a verdict that says why there is none.
      ended: whether the process is of no further use.
      blameless: whether it may not have been the task's fault, so that trying again is just.
    """

    value: Any
    ended: bool = False
    blameless: bool = False


class Worker:
    """One process that runs `igrpo_jax.rewards.workers.worker`, started at once.

    Attributes:
      task: what it is working on, None while it is idle.
      due: when, in seconds of the monotonic clock, it must have answered.
      prepared: how many of the pool's preparations it has made.
    """

    def __init__(self, memory_mb: int, *, heard: bool = False):
        """Starts it; what a `heard` one prints goes to stderr, what others print nowhere."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-W", "ignore", "-m", "igrpo_jax.rewards.workers.worker"]
        # A fresh interpreter, not multiprocessing's spawn: that would run the main script once more, and import jax.
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), str(memory_mb)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2 if heard else subprocess.DEVNULL,
                env=_environment() | ({"PYTHONUNBUFFERED": "1"} if heard else {}),
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self._number = b""
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        self.task: Any = None
        self.due = 0.0
        self.prepared = 0

    def fileno(self) -> int:
        """The socket's, for `selectors`; -1 once it is closed."""
        return self._socket.fileno()

    @property
    def sending(self) -> bool:
        """Whether part of the request has still to be written."""
        return len(self._outgoing) > 0

    def alive(self) -> bool:
        """Whether the process runs and its socket is open."""
        return self.fileno() >= 0 and self._process.poll() is None

    def begin(self, kind: bytes, call: bytes, *, task: Any, seconds: float) -> bool:
        """Starts a task; False if the process is gone, or has said something that nobody asked for."""
        try:
            self._socket.recv(1)
            return False
        except BlockingIOError:
            pass
        except OSError:
            return False
        self._number = secrets.token_bytes(16)
        self._incoming.clear()
        self._outgoing = memoryview(wire.REQUEST.pack(self._number, kind, len(call)) + call)
        self.task, self.due = task, time.monotonic() + seconds
        self.write()
        return True

    def write(self) -> None:
        """Sends as much of the request as the socket takes now."""
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing = memoryview(b"")  # reading will tell why

    def read(self) -> Result | None:
        """Takes what there is to read; the task's result, None where more of it is to come."""
        try:
            part = self._socket.recv(2**20)
        except BlockingIOError:
            return None
        except OSError:
            part = b""
        if not part:
            return self._death()
        self._incoming += part
        if len(self._incoming) < wire.ANSWER.size:
            return None
        number, size = wire.ANSWER.unpack_from(self._incoming)
        end = wire.ANSWER.size + size
        if number != self._number or size > wire.MAX_ANSWER or len(self._incoming) > end or self.sending:
            return _confused("it answers what it was not asked")
        if len(self._incoming) < end:
            return None
        try:
            return Result(wire.decode(self._incoming[wire.ANSWER.size :]))
        except wire.NoAnswer as error:
            return _confused(str(error))

    def kill(self) -> int:
        """Ends the process and all it has started; its exit status, negative for a signal."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_LEAVE_SECONDS)  # its guard sees the closed socket
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def _death(self) -> Result:
        """The result of a task in which the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVE_SECONDS)
        status = self.kill()
        how = _signal_name(-status) if status < 0 else f"exit status {status}"
        verdict = Verdict(0.0, "error", message=f"the grader process died ({how})")
        return Result(verdict, ended=True, blameless=status < 0)


def _confused(why: str) -> Result:
    message = f"the grader process wrote what is no answer: {why}"
    return Result(Verdict(0.0, "error", message=message), ended=True, blameless=True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment() -> dict[str, str]:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # Fixed hashing and one thread: the same verdict every time, and no thread stacks against the memory limit. Nor does
    # what earlier items freed count against it, as it would with the allocator settings of `launch.py`. A reward that
    # uses jax finds the host alone: the accelerators are the trainer's.
    return {
        **{name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"},
        "PYTHONPATH": path,
        "PYTHONHASHSEED": "0",
        "JAX_PLATFORMS": "cpu",
        **dict.fromkeys(_THREADS, "1"),
    }
