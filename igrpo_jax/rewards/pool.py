"""Worker processes that grade: each item has a deadline, and a process that overruns it is killed and replaced."""

import contextlib
import importlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from typing import Any

from igrpo_jax.rewards.process import Worker
from igrpo_jax.rewards.verdict import Verdict

_PREPARE_SECONDS = 120.0


class GraderPool:
    """Grades items in other processes, so that no item can hang, crash or fill the memory of this one.

    The processes start at the first use, run this Python without jax and without importing the main script again,
    ignore Ctrl-C, and end with this process. Needs POSIX; the memory limit needs Linux. Callers in several threads wait
    for one another.

    Args:
      workers: number of processes.
      deadline: seconds one item may take, counted from when its process starts on it.
      memory_mb: MiB one process may use beyond what it holds after its imports.

    Raises:
      ValueError: for numbers that are not positive.
    """

    def __init__(self, workers: int, deadline: float | int, memory_mb: int):
        for name, value in (("workers", workers), ("deadline", deadline), ("memory_mb", memory_mb)):
            if not value > 0:
                raise ValueError(f"reward.{name} is {value}; give a number above 0")
        self._size, self._deadline, self._memory_mb = workers, deadline, memory_mb
        self._preparations: list[tuple[Callable, tuple]] = []
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        # Linux kills a child when the *thread* that started it ends, so one that lives as long as the pool starts all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="grader-starter")
        self._finalizer = weakref.finalize(self, _kill_all, self._workers)

    def __enter__(self) -> "GraderPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self, function: Callable, *args: Any) -> None:
        """Makes every process call `function(*args)` once before its next item, outside deadline and memory limit."""
        if (function, args) not in self._preparations:
            self._preparations.append((function, args))

    def map(self, function: Callable, items: Sequence[tuple]) -> list[Any]:
        """Calls `function(*item)` for each item, in processes.

        Args:
          function: a function that other processes can import; not a lambda, not from the main script.
          items: tuples of picklable arguments.

        Returns:
          One result an item, in order. An item that overran the deadline has `Verdict(0.0, "timeout")`, one that ran
          out of memory "memory", one that raised or killed its process "error" with a message.

        Raises:
          ValueError: if the function cannot be imported elsewhere, or a process cannot be started or prepared.
        """
        if function.__module__ == "__main__" or "<" in getattr(function, "__qualname__", ""):
            raise ValueError(f"graders cannot import {function!r}; move it to the top level of a module of its own")
        with self._lock:
            self.prepare(importlib.import_module, function.__module__)
            try:
                return self._map(function, items)
            except BaseException:
                _kill_all(self._workers)  # busy processes would answer the next call
                raise

    def close(self) -> None:
        """Kills the processes; a later `map` starts new ones."""
        with self._lock:
            _kill_all(self._workers)

    def _map(self, function: Callable, items: Sequence[tuple]) -> list[Any]:
        results: list[Any] = [None] * len(items)
        todo, unfinished = deque(range(len(items))), len(items)
        for worker in [worker for worker in self._workers if not worker.alive()]:
            self._replace(worker)
        while len(self._workers) < min(self._size, len(items)):
            self._workers.append(self._start())
        while unfinished:
            for worker in [worker for worker in self._workers if worker.task is None]:
                self._assign(worker, function, items, todo)
            for worker, result in self._next_events():
                task, worker.task = worker.task, None
                if not isinstance(task, int):
                    self._check_prepared(worker, task, result)
                    continue
                results[task] = result
                unfinished -= 1
                if (isinstance(result, Verdict) and result.reason in ("timeout", "memory")) or not worker.alive():
                    self._replace(worker)
        return results

    def _assign(self, worker: Worker, function: Callable, items: Sequence[tuple], todo: deque[int]) -> None:
        """Gives an idle worker its next preparation, else the next item, if there is one."""
        if worker.prepared < len(self._preparations):
            called, args = self._preparations[worker.prepared]
            if not worker.send("prepare", called, args, task=called, seconds=_PREPARE_SECONDS):
                self._check_prepared(worker, called, worker.receive())
        elif todo:
            index = todo.popleft()
            if not worker.send("item", function, items[index], task=index, seconds=self._deadline):
                todo.appendleft(index)  # it died while idle, which is not the item's fault
                self._replace(worker)

    def _next_events(self) -> list[tuple[Worker, Any]]:
        """Sleeps until a worker answers, dies or overruns its deadline; the workers that did, with their results."""
        busy = [worker for worker in self._workers if worker.task is not None]
        if not busy:
            return []
        timeout = max(0.0, min(worker.due for worker in busy) - time.monotonic())
        ready = wait([worker.connection for worker in busy], timeout)
        now = time.monotonic()
        events = []
        for worker in busy:
            if worker.connection in ready:
                events.append((worker, worker.receive()))
            elif worker.due <= now:
                worker.kill()
                events.append((worker, Verdict(0.0, "timeout")))
        return events

    def _check_prepared(self, worker: Worker, task: Any, result: Any) -> None:
        if isinstance(result, Verdict):
            raise ValueError(
                f"a grader process failed in {getattr(task, '__name__', task)}: {result.message or result.reason}; "
                "check that `python -c 'import igrpo_jax.rewards.compare'` and the reward's own imports work"
            )
        worker.prepared += 1

    def _start(self) -> Worker:
        return self._starter.submit(Worker, self._memory_mb).result()

    def _replace(self, worker: Worker) -> None:
        worker.kill()
        self._workers[self._workers.index(worker)] = self._start()


def _kill_all(workers: list[Worker]) -> None:
    while workers:
        with contextlib.suppress(Exception):
            workers.pop().kill()
