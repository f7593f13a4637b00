"""What a grader process runs: `python -m igrpo_jax.rewards.worker <descriptor> <parent> <memory>`; imports no jax."""

import contextlib
import os
import pickle
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from igrpo_jax.rewards.verdict import Verdict

_MESSAGE_LENGTH = 500
_OUT_OF_MEMORY = pickle.dumps(Verdict(0.0, "memory"))


def main(descriptor: int, parent: int, memory_mb: int) -> None:
    """Answers messages until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    while True:
        try:
            kind, call = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        if kind == "prepare":
            _limit_memory(None)
            answer = _run(call, keep=False)
            _limit_memory(memory_mb)
        else:
            answer = _run(call, keep=True)
        connection.send_bytes(answer)


def _run(call: bytes, *, keep: bool) -> bytes:
    """Makes the pickled call and pickles its result, or None; never raises."""
    try:
        function, args = pickle.loads(call)
        result = function(*args)
        return pickle.dumps(result if keep else None)
    except MemoryError:
        return _OUT_OF_MEMORY
    except BaseException as error:  # SystemExit too: a scorer that exits is a scorer that failed
        message = f"{type(error).__name__}: {error}"[:_MESSAGE_LENGTH]
    return pickle.dumps(Verdict(0.0, "error", message=message))


def _limit_memory(memory_mb: int | None) -> None:
    """Lets the address space grow by so much beyond its present size; None lifts the limit."""
    if sys.platform != "linux":
        return
    limit = hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if memory_mb is not None:
        with open("/proc/self/statm") as file:
            limit = int(file.read().split()[0]) * resource.getpagesize() + memory_mb * 2**20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _end_with(parent: int) -> None:
    """Asks Linux to kill this process when its parent ends, even while it computes; elsewhere the closed pipe does."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent ended first")


if __name__ == "__main__":
    arguments: list[Any] = sys.argv[1:]
    main(*map(int, arguments))
