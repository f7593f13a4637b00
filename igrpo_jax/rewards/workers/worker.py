"""What a grader process runs, below a guard: `python -m igrpo_jax.rewards.workers.worker`; imports no jax."""

import os
import pickle
import resource
import signal
import socket
import sys
from typing import Any

from igrpo_jax.rewards.verdict import Verdict
from igrpo_jax.rewards.workers import guard, wire

_OUT_OF_MEMORY = wire.encode(Verdict(0.0, "memory"))


def main(descriptor: int, trainer: int, memory_mb: int) -> None:
    """Becomes a guard and, below it, a worker that answers requests until the trainer closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(descriptor, False)
    guard.adopt_orphans()
    above = os.getpid()
    worker = os.fork()
    if worker:
        guard.watch(worker, descriptor, trainer)
    os.setpgid(0, 0)
    guard.end_with(above)
    # Told to leave together with the trainer, it waits for the trainer to decide. No SIG_IGN: programs inherit that.
    signal.signal(signal.SIGTERM, _nothing)
    connection = socket.socket(fileno=descriptor)
    os.register_at_fork(after_in_child=lambda: _forget(connection))
    _serve(connection, memory_mb)


def _serve(connection: socket.socket, memory_mb: int) -> None:
    here = os.getpid()
    while True:
        try:
            number, kind, size = wire.REQUEST.unpack(wire.read_exactly(connection, wire.REQUEST.size))
            call = wire.read_exactly(connection, size)
        except (EOFError, OSError):
            return
        if kind == wire.PREPARE:
            _limit_memory(None)
            answer = _run(call, keep=False)
            _limit_memory(memory_mb)
        else:
            answer = _run(call, keep=True)
        if os.getpid() != here:
            os._exit(0)  # a copy that an item made of its process has nothing to say
        signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm that is left behind would ring for the next item
        try:
            connection.sendall(wire.ANSWER.pack(number, len(answer)) + answer)
        except OSError:
            return


def _run(call: bytes, *, keep: bool) -> bytes:
    """Makes the pickled call and encodes its result, or None; never raises."""
    try:
        function, args = pickle.loads(call)
        result = function(*args)
        return wire.encode(result if keep else None)
    except MemoryError:
        return _OUT_OF_MEMORY
    except BaseException as error:  # SystemExit too: a scorer that exits is a scorer that failed
        message = f"{type(error).__name__}: {error}"[: wire.MESSAGE_LENGTH]
    return wire.encode(Verdict(0.0, "error", message=message))


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


def _forget(connection: socket.socket) -> None:
    """In a copy of this process: it neither hears the trainer nor answers, and can be told to end."""
    connection.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _nothing(*_: Any) -> None:
    pass


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
