"""A contestant's process: do a run, say how long it took, wait to be told to go on. Standard library only.

A contestant is `python -m benchmarks.<module> '<job as JSON>'`, run by any interpreter. Its standard output carries
JSON lines: `{"ready": ...}` after the warm-up, then one answer for every line that comes in; prints of libraries go to
standard error. A job has at least `task` (what to do) and `threads`.
"""

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any


class Turns:
    """Iterates over the runs that a contestant is asked for: the first is the warm-up, the others are timed.

    Attributes:
      facts: said once, when the contestant is ready; its modules' versions, for example.
      parts: said with each answer: seconds of a run's parts and the like.
    """

    def __init__(self, peak_gb: Callable[[], float]):
        self._answers, self._peak_gb = os.fdopen(os.dup(1), "w", buffering=1), peak_gb
        os.dup2(2, 1)
        self.facts: dict[str, Any] = {}
        self.parts: dict[str, Any] = {}

    def __iter__(self) -> Iterator[None]:
        yield
        self.say(ready=True, **self.facts)
        for _ in sys.stdin:
            self.parts.clear()
            started = time.perf_counter()
            yield
            self.say(seconds=time.perf_counter() - started, peak_gb=self._peak_gb(), parts=self.parts)

    def say(self, **what: Any) -> None:
        """Writes one JSON line to the one who started this process."""
        print(json.dumps(what), file=self._answers, flush=True)

    def timed(self, part: str, function: Callable) -> Callable:
        """The same function, its seconds added to a part of the run."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - started

        return call


def compete(tasks: Mapping[str, Callable[[dict[str, Any], Turns], None]], peak_gb: Callable[[], float]) -> None:
    """Does the task of the job on the command line; an error's last line is its answer.

    Args:
      tasks: by name.
      peak_gb: GB (1e9 bytes) that the process's arrays have taken at most of its GPU, or `resident_gb` without one.
    """
    turns, job = Turns(peak_gb), json.loads(sys.argv[1])
    try:
        tasks[job["task"]](job, turns)
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip().splitlines()
        turns.say(error=f"{type(error).__name__}: {text[-1] if text else ''}")
        sys.exit(1)


def resident_gb() -> float:
    """Peak resident memory of this process in GB (1e9 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": sys.version.split()[0]} | {name: metadata.version(name) for name in packages}


def read_prompts(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The prompts of the job's length, `ids` and `text`, the same for every contestant."""
    with open(job["prompts"], encoding="utf-8") as file:
        return json.load(file)[str(job["prompt"])]


def reward(text: str) -> float:
    """Share of vowels: cheap, and different for nearly every completion, so that no group is without spread."""
    return sum(letter in "aeiou" for letter in text) / max(len(text), 1)
