"""Several rewards as one: calls them, checks what they return, and adds them up."""

import inspect
import math
import numbers
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.rewards.builtin import Reward
from igrpo_jax.rewards.verdict import Verdict
from igrpo_jax.rewards.workers.pool import GraderPool

VERIFIERS = ("accuracy", "gym")
"""Functions that say whether an answer is right, by name, the one that decides first; 1 is right, less is not."""

GIVEN = ("prompts", "completions", "completion_ids", "ended")
"""Columns that every call has, whatever the data."""

_PATCHED = threading.RLock()


class Scores(NamedTuple):
    """What n completions were worth, and why.

    Attributes:
      total: float32[n]; weighted sum, in which a reward that does not apply counts 0.
      each: float32[n] of every reward function, unweighted, NaN where it does not apply.
      parsed: the answer read from each completion, by the first function that gives a verdict of it.
      reasons: why, in the words of `igrpo_jax.rewards.verdict.REASONS`, by that function; empty if there is none.
      timeouts: int32[n]; how many functions' verdicts ran into the deadline.
      errors: int32[n]; how many functions' verdicts are errors or ran out of memory.
    """

    total: np.ndarray
    each: dict[str, np.ndarray]
    parsed: list[str | None]
    reasons: list[str]
    timeouts: np.ndarray
    errors: np.ndarray

    def right(self) -> tuple[str, np.ndarray]:
        """What decides which completions are right, and bool[n], which are.

        Whatever else is rewarded, `accuracy` decides, and `gym` where accuracy does not apply; the name is then empty.
        Where neither is rewarded it is the first function's, and right is what it gives more than 0.
        """
        verifiers = [self.each[name] for name in VERIFIERS if name in self.each]
        if not verifiers:
            name, values = next(iter(self.each.items()))
            return name, np.nan_to_num(values) > 0
        values = np.where(np.isnan(verifiers[0]), verifiers[-1], verifiers[0])
        return "", np.nan_to_num(values) >= 1

    def part(self, start: int, stop: int) -> "Scores":
        """Those of completions start to stop."""
        rows = slice(start, stop)
        each = {name: values[rows] for name, values in self.each.items()}
        return Scores(
            self.total[rows], each, self.parsed[rows], self.reasons[rows], self.timeouts[rows], self.errors[rows]
        )

    @staticmethod
    def join(parts: Sequence["Scores"]) -> "Scores":
        """Those of all parts' completions, in order."""
        return Scores(
            total=np.concatenate([part.total for part in parts]),
            each={name: np.concatenate([part.each[name] for part in parts]) for name in parts[0].each},
            parsed=[answer for part in parts for answer in part.parsed],
            reasons=[reason for part in parts for reason in part.reasons],
            timeouts=np.concatenate([part.timeouts for part in parts]),
            errors=np.concatenate([part.errors for part in parts]),
        )


class Rewards:
    """Named reward functions, their weights, and the pool they share; made by `load_rewards`.

    Args:
      functions: rewards with TRL's signature by name, in order.
      weights: one number a function.
      pool: closed together with this.
    """

    def __init__(self, functions: Mapping[str, Reward], *, weights: Sequence[float | int], pool: GraderPool):
        self._functions, self._weights, self._pool = dict(functions), tuple(weights), pool

    def __enter__(self) -> "Rewards":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def needed(self) -> set[str]:
        """The columns of the data that some function cannot do without."""
        return set().union(*(_parameters(function)[1] for function in self._functions.values())) - set(GIVEN)

    def close(self) -> None:
        """Ends the grader processes."""
        self._pool.close()

    def score(self, prompts: Sequence[Any], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Scores:
        """Rewards n completions.

        Args:
          prompts: the prompt of each completion.
          completions: the completions alone, decoded; prompts are never read for answers.
          columns: further columns of the data by name, one value a completion; functions get them by keyword, as
            prompts and completions, if they have a parameter of that name or `**`.

        Raises:
          ValueError: if a function needs a column that is not there, raises, or returns something else than one finite
            number or None a completion; or if no function applies to a completion.
        """
        results = {
            name: _call(name, function, prompts, completions, columns) for name, function in self._functions.items()
        }
        each = {name: np.array([math.nan if v is None else v for v in result]) for name, result in results.items()}
        stacked = np.stack(list(each.values()))
        if len(completions) and (nowhere := np.isnan(stacked).all(axis=0)).any():
            raise ValueError(
                f"no reward applies to completion {int(nowhere.argmax())}: {', '.join(results)} returned None for it; "
                "add a reward function that applies to every row, or drop such rows from the data"
            )
        total = np.asarray(self._weights, np.float64) @ np.nan_to_num(stacked)
        parsed, reasons = _explained(list(results.values()))
        return Scores(
            total=total.astype(np.float32),
            each={name: values.astype(np.float32) for name, values in each.items()},
            parsed=parsed,
            reasons=reasons,
            timeouts=_count(results.values(), len(completions), "timeout"),
            errors=_count(results.values(), len(completions), "error", "memory"),
        )

    __call__ = score


def _call(
    name: str,
    function: Reward,
    prompts: Sequence[Any],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> list[float | None]:
    """One function's results, checked."""
    given = _arguments(name, function, {**columns, "prompts": prompts, "completions": completions})
    with _refused_signals() as refused:
        try:
            result, error = function(**given), None
        except Exception as raised:
            result, error = None, raised
    if refused:
        raise ValueError(
            f"reward {name!r} sets a signal handler, which Python allows in the main thread only, and rewards run in "
            "another, so what it returns is no verdict; do without: math_verify takes parse(..., parsing_timeout=None) "
            "and verify(..., timeout_seconds=None), and the built-in reward accuracy has deadlines of its own"
        ) from error
    if error is not None:
        raise ValueError(
            f"reward {name!r} raised {type(error).__name__}: {error}; it must return one number or None a completion"
        ) from error
    wanted = f"it must return a list of {len(completions)} finite numbers or None, one a completion"
    if not isinstance(result, list | tuple | np.ndarray):
        raise ValueError(f"reward {name!r} returned {type(result).__name__} {str(result)[:80]!r}; {wanted}")
    if len(result) != len(completions):
        raise ValueError(f"reward {name!r} returned {len(result)} values for {len(completions)} completions; {wanted}")
    for index, value in enumerate(result):
        number = isinstance(value, numbers.Real | np.bool_)
        if value is not None and not (number and math.isfinite(value)):
            raise ValueError(f"reward {name!r} returned {value!r} for completion {index}; {wanted}")
    return [value if value is None or isinstance(value, Verdict) else float(value) for value in result]


def _arguments(name: str, function: Reward, columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The columns that a function takes, as lists of its own."""
    named, needed = _parameters(function)
    missing = sorted(needed - set(columns))
    if missing:
        raise ValueError(
            f"reward {name!r} needs the column {', '.join(missing)}, but the data has "
            f"{', '.join(sorted(set(columns) - {'prompts', 'completions'})) or 'none'}; choose a data source that has "
            "it, or another reward"
        )
    return {key: list(values) for key, values in columns.items() if named is None or key in named}


def _parameters(function: Reward) -> tuple[set[str] | None, set[str]]:
    """The names of a function's parameters, None where it takes any, and of those without a default."""
    parameters = inspect.signature(function).parameters.values()
    own = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = {p.name for p in own if p.default is p.empty}
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters) else {p.name for p in own}, needed


@contextmanager
def _refused_signals() -> Iterator[list[int]]:
    """The numbers of the signals whose handlers this thread tries to set inside, where Python refuses that.

    A reward may swallow Python's error: recipes have `except Exception: return 0.0` around math_verify, whose timeouts
    are alarms.
    """
    refused: list[int] = []
    here = threading.current_thread()
    if here is threading.main_thread():
        yield refused
        return

    def noting(number: int, handler: Any) -> Any:
        if threading.current_thread() is here:
            refused.append(number)
        return original(number, handler)

    with _PATCHED:
        original, signal.signal = signal.signal, noting
        try:
            yield refused
        finally:
            signal.signal = original


def _explained(results: list[list[float | None]]) -> tuple[list[str | None], list[str]]:
    """Each completion's parsed answer and reason, of the first function that gives a verdict of it."""
    rows = zip(*results, strict=True)
    verdicts = [next((value for value in row if isinstance(value, Verdict)), None) for row in rows]
    return [v.parsed if v is not None else None for v in verdicts], [
        v.reason if v is not None else "" for v in verdicts
    ]


def _count(results: Iterable[list[float | None]], size: int, *reasons: str) -> np.ndarray:
    """Verdicts a completion with one of the reasons."""
    counts = np.zeros(size, np.int32)
    for result in results:
        counts += [isinstance(value, Verdict) and value.reason in reasons for value in result]
    return counts
