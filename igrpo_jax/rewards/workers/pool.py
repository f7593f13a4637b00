"""Worker processes that grade: each item has a deadline, and a process that overruns it is killed and replaced."""

import contextlib
import importlib
import os
import pickle
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from igrpo_jax.rewards.verdict import Verdict
from igrpo_jax.rewards.workers import wire
from igrpo_jax.rewards.workers.process import Result, Worker

_PREPARE_SECONDS = 120.0


class Closed(RuntimeError):
    """The pool was closed by another thread while it graded."""


class GraderPool:
    """Grades items in other processes: none can hang or crash this one, fill its memory, or run anything in it.

    The processes start at the first use, run this Python without jax and without importing the main script again,
    ignore Ctrl-C, and end with this process, together with all they have started. Needs POSIX; the memory limit, and
    the end of what left its session, need Linux. Callers in several threads wait for one another.

    Args:
      workers: number of processes.
      deadline: seconds one item may take, counted from when it is sent to a process.
      memory_mb: MiB one process may use beyond what it holds after its imports.
      prepare_seconds: seconds each preparation may take.
      heard: whether what the processes print is shown, on stderr.

    Raises:
      ValueError: for numbers that are not positive.
    """

    def __init__(
        self,
        workers: int,
        deadline: float | int,
        memory_mb: int,
        *,
        prepare_seconds: float = _PREPARE_SECONDS,
        heard: bool = False,
    ):
        for name, value in (("workers", workers), ("deadline", deadline), ("memory_mb", memory_mb)):
            if not value > 0:
                raise ValueError(f"reward.{name} is {value}; give a number above 0")
        self._size, self._deadline, self._memory_mb = workers, float(deadline), memory_mb
        self._prepare_seconds, self._heard = prepare_seconds, heard
        self._preparations: list[tuple[Callable, tuple]] = []
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        self._closing = False
        self._finalizer = weakref.finalize(self, _end, self._workers, (self._woken, self._waker))

    def __enter__(self) -> "GraderPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, function: Callable, *args: Any) -> None:
        """Makes every process call `function(*args)` once before its next item, outside deadline and memory limit."""
        if (function, args) not in self._preparations:
            self._preparations.append((function, args))

    def map(self, function: Callable, items: Sequence[tuple], *, seconds: float | None = None) -> list[Any]:
        """Calls `function(*item)` for each item, in processes.

        Args:
          function: a function that other processes can import; not a lambda, not from the main script.
          items: tuples of picklable arguments.
          seconds: another deadline than the pool's.

        Returns:
          One result an item, in order: plain data (None, truth values, numbers, texts, lists and dictionaries of them)
          or a `Verdict`. An item that overran the deadline has `Verdict(0.0, "timeout")`, one that ran out of memory
          "memory", one that raised or killed its process "error" with a message. If a process was ended by a signal, or
          wrote what is no answer, its item is graded once more, for that may be another's fault.

        Raises:
          ValueError: if the function cannot be imported elsewhere, arguments cannot be pickled, or a process cannot be
            started or prepared.
          Closed: if another thread closed the pool meanwhile.
        """
        if function.__module__ == "__main__" or "<" in getattr(function, "__qualname__", ""):
            raise ValueError(f"graders cannot import {function!r}; move it to the top level of a module of its own")
        with self._lock:
            self.prepare(importlib.import_module, function.__module__)
            try:
                return self._map(function, items, self._deadline if seconds is None else seconds)
            except BaseException:
                _kill_all(self._workers)  # busy processes would answer the next call
                raise

    def close(self) -> None:
        """Kills the processes, also while another thread grades, which then raises; a later `map` starts new ones."""
        self._closing = True
        with contextlib.suppress(OSError):
            os.write(self._waker, b"!")
        with self._lock:
            _kill_all(self._workers)
            self._closing = False
            with contextlib.suppress(OSError):
                os.read(self._woken, 4096)

    def _map(self, function: Callable, items: Sequence[tuple], seconds: float) -> list[Any]:
        results: list[Any] = [None] * len(items)
        todo, unfinished = deque(range(len(items))), len(items)
        again: set[Any] = set()
        for worker in [worker for worker in self._workers if not worker.alive()]:
            self._replace(worker)
        while len(self._workers) < min(self._size, len(items)):
            self._workers.append(self._start())
        while unfinished:
            if self._closing:
                raise Closed("the graders were closed while they worked")
            for worker in [worker for worker in self._workers if worker.task is None]:
                self._assign(worker, function, items, todo, seconds)
            for worker, result in self._next_events():
                task, worker.task = worker.task, None
                repeated = result.blameless and task not in again
                if repeated:
                    again.add(task)
                if not isinstance(task, int):
                    if repeated:
                        self._replace(worker)
                    else:
                        self._check_prepared(worker, task, result.value)
                    continue
                if repeated:
                    todo.appendleft(task)
                else:
                    results[task] = result.value
                    unfinished -= 1
                if result.ended or _spent(result.value):
                    self._replace(worker)
        return results

    def _assign(
        self, worker: Worker, function: Callable, items: Sequence[tuple], todo: deque[int], seconds: float
    ) -> None:
        """Gives an idle worker its next preparation, else the next item, if there is one."""
        if worker.prepared < len(self._preparations):
            called, args = self._preparations[worker.prepared]
            call = pickle.dumps((called, args))
            if not worker.begin(wire.PREPARE, call, task=called, seconds=self._prepare_seconds):
                self._replace(worker)
        elif todo:
            index = todo.popleft()
            try:
                call = pickle.dumps((function, items[index]))
            except Exception as error:
                raise ValueError(
                    f"what {function.__name__} is to grade cannot be pickled: {type(error).__name__}: {error}; "
                    "give texts, numbers, lists and dictionaries"
                ) from error
            if not worker.begin(wire.ITEM, call, task=index, seconds=seconds):
                todo.appendleft(index)  # it died while idle, which is not the item's fault
                self._replace(worker)

    def _next_events(self) -> list[tuple[Worker, Result]]:
        """Sleeps until a worker answers, dies or overruns its deadline; the workers that did, with their results."""
        busy = [worker for worker in self._workers if worker.task is not None]
        if not busy:
            return []
        timeout = max(0.0, min(worker.due for worker in busy) - time.monotonic())
        ready = wait(busy, self._woken, timeout)
        now = time.monotonic()
        events = []
        for worker in busy:
            if worker in ready and worker.sending:
                worker.write()
            result = worker.read() if worker in ready else None
            if result is None and worker.due <= now:
                result = Result(Verdict(0.0, "timeout"), ended=True)
            if result is not None:
                events.append((worker, result))
        return events

    def _check_prepared(self, worker: Worker, task: Any, result: Any) -> None:
        if isinstance(result, Verdict):
            raise ValueError(
                f"a grader process failed in {getattr(task, '__name__', task)}: {result.message or result.reason}; "
                "check that `python -c 'import igrpo_jax.rewards.compare'` and the reward's own imports work"
            )
        worker.prepared += 1

    def _start(self) -> Worker:
        return Worker(self._memory_mb, heard=self._heard)

    def _replace(self, worker: Worker) -> None:
        worker.kill()
        self._workers[self._workers.index(worker)] = self._start()


def wait(workers: Sequence[Worker], woken: int, timeout: float) -> set[Worker]:
    """Sleeps until some workers can be read or written, or `woken` can be read, at most so many seconds; these."""
    with selectors.DefaultSelector() as selector:
        selector.register(woken, selectors.EVENT_READ)
        for worker in workers:
            writes = selectors.EVENT_WRITE if worker.sending else 0
            selector.register(worker, selectors.EVENT_READ | writes)
        return {key.fileobj for key, _ in selector.select(timeout) if isinstance(key.fileobj, Worker)}


def _spent(result: Any) -> bool:
    """Whether a process that gave this result may hold too much memory to go on."""
    return isinstance(result, Verdict) and result.reason == "memory"


def _kill_all(workers: list[Worker]) -> None:
    while workers:
        with contextlib.suppress(Exception):
            workers.pop().kill()


def _end(workers: list[Worker], pipe: Sequence[int]) -> None:
    _kill_all(workers)
    for descriptor in pipe:
        with contextlib.suppress(OSError):
            os.close(descriptor)
