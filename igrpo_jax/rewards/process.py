"""The parent's end of one grader process."""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from igrpo_jax.rewards.verdict import Verdict

_MESSAGE_LENGTH = 500


class Worker:
    """One process that runs `igrpo_jax.rewards.worker`, started at once.

    Attributes:
      connection: the pipe to it, for `multiprocessing.connection.wait`.
      task: what it is working on, None while it is idle.
      due: when, in seconds of the monotonic clock, it must have answered.
      prepared: how many of the pool's preparations it has made.
    """

    def __init__(self, memory_mb: int):
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-W", "ignore", "-m", "igrpo_jax.rewards.worker"]
        # A fresh interpreter, not multiprocessing's spawn: that would run the main script once more, and import jax.
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), str(memory_mb)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        self.connection = Connection(ours.detach())
        self.task: Any = None
        self.due = 0.0
        self.prepared = 0

    def alive(self) -> bool:
        """Whether the process runs and its pipe is open."""
        return not self.connection.closed and self._process.poll() is None

    def send(self, kind: str, function: Callable, args: tuple, *, task: Any, seconds: float | int) -> bool:
        """Starts a task; False if the process is gone."""
        message = pickle.dumps((kind, pickle.dumps((function, args))))
        try:
            self.connection.send_bytes(message)
        except OSError:
            return False
        self.task, self.due = task, time.monotonic() + seconds
        return True

    def receive(self) -> Any:
        """The result of the task, or a verdict that says why there is none."""
        try:
            return pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            # What closed its pipe is about to end, and its own exit status says more than our signal.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            status = self.kill()
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            return Verdict(0.0, "error", message=f"the grader process died ({how})")
        except Exception as error:
            message = f"the result cannot be unpickled: {type(error).__name__}: {error}"
            return Verdict(0.0, "error", message=message[:_MESSAGE_LENGTH])

    def kill(self) -> int:
        """Ends the process and all it has started; its exit status, negative for a signal."""
        self.connection.close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


def _environment() -> dict[str, str]:
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # Fixed hashing and one thread: the same verdict every time, and no thread stacks against the memory limit. Nor does
    # what earlier items freed count against it, as it would with the allocator settings of `launch.py`.
    return {
        **{name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"},
        "PYTHONPATH": path,
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
