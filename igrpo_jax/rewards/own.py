"""Reward functions of the user's own, called in a process with a deadline and a memory limit.

The process imports the user's module; the trainer never does. It calls the function with TRL's signature in its main
thread, so that alarms work, as those of math_verify.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from igrpo_jax.rewards import importing
from igrpo_jax.rewards.verdict import Verdict
from igrpo_jax.rewards.workers.pool import GraderPool

PREPARE_SECONDS = 900.0
"""For importing a user's module, which may load a model."""


class Failed(ValueError):
    """A call that gave nothing: it raised, overran the deadline, or its process died."""

    def __init__(self, verdict: Verdict):
        super().__init__(verdict.message or verdict.reason)
        self.verdict = verdict


class Shown:
    """What a function returned that is no number, as text."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text


class Own:
    """A function by its path, to be called like the function itself.

    Attributes:
      parameters: names of its parameters, None where it takes any, and of those without a default.
      deadline: seconds of one call.
    """

    def __init__(self, path: str, pool: GraderPool, *, deadline: float):
        """Imports it in a process of the pool.

        Args:
          path: `package.module:function` or `path/to/file.py:function`.
          pool: one process, which all functions of the user's share.
          deadline: seconds of one call.

        Raises:
          ValueError: the module or the function cannot be had.
        """
        self._path, self._pool, self.deadline = path, pool, deadline
        pool.prepare(importing.load, path)
        (about,) = pool.map(importing.describe, [(path,)])
        if isinstance(about, Verdict):
            raise ValueError(f"reward {path!r}: {about.message or about.reason}")
        if "error" in about:
            raise ValueError(about["error"])
        named, needed = about["named"], about["needed"]
        self.parameters = None if named is None else set(named), set(needed)

    def __call__(self, **columns: Sequence[Any]) -> list[Any]:
        """What the function returns; numbers, None and verdicts, with `Shown` in place of anything else.

        Raises:
          Failed: it gave nothing.
          TypeError: it did not return a list; this says what.
          ValueError: a column cannot be pickled.
        """
        return self._called(columns, self.deadline)

    def each(self, columns: Mapping[str, Sequence[Any]], failed: Failed) -> list[Any]:
        """After a call that failed: what the function returns of halves, halves of these, and so on.

        Rows that fail alone have verdicts, and so have rows of calls for which the deadline of one call leaves no time.
        """
        due = time.monotonic() + self.deadline

        def part(start: int, stop: int, failed: Failed) -> list[Any]:
            left = due - time.monotonic()
            if stop - start == 1 or failed.verdict.reason == "timeout" or left <= 0:
                return [failed.verdict] * (stop - start)
            middle = (start + stop) // 2
            results = []
            for a, b in ((start, middle), (middle, stop)):
                try:
                    values = self._called(_rows(columns, a, b), max(left, 0.01))
                except Failed as again:
                    values = part(a, b, again)
                if len(values) != b - a:
                    raise TypeError(f"{len(values)} values for {b - a} completions")
                results += values
                left = due - time.monotonic()
            return results

        return part(0, _size(columns), failed)

    def row(self, columns: Mapping[str, Sequence[Any]], failed: Failed) -> int | None:
        """After a call that failed: a row with which it fails alone, None if none is found in the time of one call."""
        if failed.verdict.reason == "timeout":
            return None
        start, stop = 0, _size(columns)
        due = time.monotonic() + self.deadline
        while stop - start > 1:
            middle = (start + stop) // 2
            for a, b in ((start, middle), (middle, stop)):
                try:
                    self._called(_rows(columns, a, b), max(due - time.monotonic(), 0.01))
                except Failed as again:
                    if again.verdict.reason == "timeout":
                        return None
                    start, stop = a, b
                    break
                except TypeError:
                    return None
            else:
                return None
        return start

    def _called(self, columns: Mapping[str, Sequence[Any]], seconds: float) -> list[Any]:
        try:
            (answer,) = self._pool.map(importing.call, [(self._path, dict(columns))], seconds=seconds)
        except ValueError as error:
            raise ValueError(f"reward {self._path!r}: {error}") from error
        if isinstance(answer, Verdict):
            raise Failed(answer)
        if "returned" in answer:
            raise TypeError(answer["returned"])
        return [_value(value) for value in answer["values"]]


def _size(columns: Mapping[str, Sequence[Any]]) -> int:
    return max(map(len, columns.values()), default=0)


def _rows(columns: Mapping[str, Sequence[Any]], start: int, stop: int) -> dict[str, Sequence[Any]]:
    return {name: values[start:stop] for name, values in columns.items()}


def _value(value: Any) -> Any:
    """A value as `importing.call` writes it."""
    match value:
        case {"verdict": [number, reason, parsed, message]}:
            return Verdict(number, reason, parsed, message)
        case {"shown": str(text)}:
            return Shown(text)
    return value
