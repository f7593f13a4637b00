"""Several rewards as one: calls them, checks what they return, and adds them up."""

import inspect
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.rewards.builtin import Reward
from igrpo_jax.rewards.pool import GraderPool
from igrpo_jax.rewards.verdict import Verdict


class Scores(NamedTuple):
    """What n completions were worth, and why.

    Attributes:
      total: float32[n]; weighted sum, in which a reward that does not apply counts 0.
      each: float32[n] of every reward function, unweighted, NaN where it does not apply.
      parsed: the answer read from each completion, by the first function that gives verdicts.
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

    def close(self) -> None:
        """Ends the grader processes."""
        self._pool.close()

    def score(self, prompts: Sequence[Any], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Scores:
        """Rewards n completions.

        Args:
          prompts: the prompt of each completion.
          completions: the completions alone, decoded; prompts are never read for answers.
          columns: further columns of the data by name, one value a completion; functions get them by keyword.

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
        parsed, reasons = _explained(list(results.values()), len(completions))
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
    given = _arguments(name, function, columns)
    try:
        result = function(prompts=prompts, completions=completions, **given)
    except Exception as error:
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
    """The columns that a function takes."""
    parameters = inspect.signature(function).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    needed = {p.name for p in parameters if p.name in named and p.default is p.empty} - {"prompts", "completions"}
    missing = sorted(needed - set(columns))
    if missing:
        raise ValueError(
            f"reward {name!r} needs the column {', '.join(missing)}, but the data has "
            f"{', '.join(sorted(columns)) or 'none'}; choose a data source that has it, or another reward"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return {key: value for key, value in columns.items() if key not in ("prompts", "completions")}
    return {key: value for key, value in columns.items() if key in named - {"prompts", "completions"}}


def _explained(results: list[list[float | None]], count: int) -> tuple[list[str | None], list[str]]:
    """Parsed answers and reasons of the first function that gives verdicts."""
    for result in results:
        if any(isinstance(value, Verdict) for value in result):
            return (
                [value.parsed if isinstance(value, Verdict) else None for value in result],
                [value.reason if isinstance(value, Verdict) else "" for value in result],
            )
    return [None] * count, [""] * count


def _count(results: Iterable[list[float | None]], size: int, *reasons: str) -> np.ndarray:
    """Verdicts a completion with one of the reasons."""
    counts = np.zeros(size, np.int32)
    for result in results:
        counts += [isinstance(value, Verdict) and value.reason in reasons for value in result]
    return counts
