"""Several rewards as one: calls them, checks what they return, and adds them up."""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.rewards.builtin import Reward
from igrpo_jax.rewards.calls import LARGEST, called, parameters_of
from igrpo_jax.rewards.judge import Judge
from igrpo_jax.rewards.verdict import Verdict, filled
from igrpo_jax.rewards.workers.pool import Closed, GraderPool

VERIFIERS = ("accuracy", "gym")
"""Functions that say whether an answer is right, by name, the one that decides first; 1 is right, less is not."""

GIVEN = ("prompts", "completions", "completion_ids", "ended")
"""Columns that every call has, whatever the data."""


class Scores(NamedTuple):
    """What n completions were worth, and why.

    Attributes:
      total: float32[n]; weighted sum, in which a reward that does not apply counts 0.
      each: float32[n] of every reward function, unweighted, NaN where it does not apply.
      parsed: the answer read from each completion, by the first function that gives a verdict of it.
      reasons: why, in the words of `igrpo_jax.rewards.verdict.REASONS`, by that function; empty if there is none.
      timeouts: int32[n]; how many functions' verdicts ran into the deadline.
      errors: int32[n]; how many functions' verdicts are errors, ran out of memory, or are missing for the judge failed.
      counts: float32[n] by name, numbers that functions count of each completion, like a judge's tokens.
    """

    total: np.ndarray
    each: dict[str, np.ndarray]
    parsed: list[str | None]
    reasons: list[str]
    timeouts: np.ndarray
    errors: np.ndarray
    counts: dict[str, np.ndarray] = {}  # noqa: RUF012, never changed

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
        counts = {name: values[rows] for name, values in self.counts.items()}
        return Scores(
            self.total[rows], each, self.parsed[rows], self.reasons[rows], self.timeouts[rows], self.errors[rows],
            counts,
        )  # fmt: skip

    def plus(self, name: str, values: np.ndarray) -> "Scores":
        """These and one more reward of every completion."""
        total = (self.total + values).astype(np.float32)
        return self._replace(total=total, each=self.each | {name: values.astype(np.float32)})

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
            counts={name: np.concatenate([part.counts[name] for part in parts]) for name in parts[0].counts},
        )


class Rewards:
    """Named reward functions, their weights, and the pool they share; made by `load_rewards`.

    Args:
      functions: rewards with TRL's signature by name, in order.
      weights: one number a function.
      pool: closed together with this.
      apart: the pool of the user's own functions, likewise.
      errors: "stop": what is no reward is an error; "zero": a row for which a function of the user's own raises, runs
        out of time or memory, or returns no finite number, gets 0 from it and a reason.
    """

    def __init__(
        self,
        functions: Mapping[str, Reward],
        *,
        weights: Sequence[float | int],
        pool: GraderPool,
        apart: GraderPool | None = None,
        errors: str = "stop",
    ):
        self._functions, self._weights, self._errors = dict(functions), tuple(weights), errors
        self._pools = [pool] if apart is None else [pool, apart]
        self._turn, self._closed = threading.Lock(), False

    def __enter__(self) -> "Rewards":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def waits(self) -> bool:
        """Whether a judge is asked, so that calls should be made side by side."""
        return any(isinstance(function, Judge) for function in self._functions.values())

    @property
    def needed(self) -> set[str]:
        """The columns of the data that some function cannot do without."""
        return set().union(*(parameters_of(function)[1] for function in self._functions.values())) - set(GIVEN)

    def close(self) -> None:
        """Ends the grader processes and judges, also while another thread waits for them; its call then raises."""
        self._closed = True
        for closing in [*self._pools, *(one for one in self._functions.values() if isinstance(one, Judge))]:
            closing.close()

    def score(self, prompts: Sequence[Any], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Scores:
        """Rewards n completions; any thread may ask, and only judges work for several at once.

        A completion that a judge has not graded counts, in the sum, as the others of its prompt do on average.

        Args:
          prompts: the prompt of each completion.
          completions: the completions alone, decoded; prompts are never read for answers.
          columns: further columns of the data by name, one value a completion; functions get them by keyword, as
            prompts and completions, if they have a parameter of that name or `**`.

        Raises:
          ValueError: if a function needs a column that is not there, raises, overruns its deadline, or returns
            something else than one finite number or None a completion; if no function applies to a completion; if the
            sum is beyond float32.
        """
        everything = {**columns, "prompts": prompts, "completions": completions}
        results = self._results(everything, len(completions))
        each = {name: np.array([math.nan if v is None else v for v in result]) for name, result in results.items()}
        stacked = np.stack(list(each.values()))
        untold = np.array([any(_untold(v) for v in row) for row in zip(*results.values(), strict=True)], bool)
        if len(completions) and (nowhere := np.isnan(stacked).all(axis=0) & ~untold).any():
            raise ValueError(
                f"no reward applies to completion {int(nowhere.argmax())}: {', '.join(results)} returned None for it; "
                "add a reward function that applies to every row, or drop such rows from the data"
            )
        told = np.stack([_in_the_sum(result, prompts) for result in results.values()])
        total = np.asarray(self._weights, np.float64) @ told
        if len(beyond := np.flatnonzero(~(np.abs(total) <= LARGEST))):
            values = ", ".join(f"{name} {result[beyond[0]]}" for name, result in results.items())
            raise ValueError(
                f"the rewards of completion {beyond[0]} add up to {total[beyond[0]]:g}, beyond float32 ({values}); "
                "lower reward.weights, or scale what the functions return"
            )
        parsed, reasons = _explained(list(results.values()))
        return Scores(
            total=total.astype(np.float32),
            each={name: values.astype(np.float32) for name, values in each.items()},
            parsed=parsed,
            reasons=reasons,
            timeouts=_count(results.values(), len(completions), "timeout"),
            errors=_count(results.values(), len(completions), "error", "memory", "judge_failed"),
            counts=_counts(results),
        )

    __call__ = score

    def _results(self, everything: Mapping[str, Sequence[Any]], size: int) -> dict[str, list[float | None]]:
        """What each function returns; judges come last, for they only wait, and nobody waits for them here."""
        results: dict[str, list[float | None]] = {}
        for waits in (False, True):
            with nullcontext() if waits else self._turn:
                if self._closed:
                    raise Closed("the rewards were closed while they were asked for")
                for name, function in self._functions.items():
                    if isinstance(function, Judge) is waits:
                        results[name] = called(name, function, everything, size, errors=self._errors)
        return {name: results[name] for name in self._functions}


def _untold(value: float | None) -> bool:
    return isinstance(value, Verdict) and value.untold


def _in_the_sum(result: Sequence[float | None], prompts: Sequence[Any]) -> np.ndarray:
    """One function's part of the sum: 0 where it does not apply, the mean of its like where it cannot tell."""
    if not any(map(_untold, result)):
        return np.array([0.0 if value is None else value for value in result], np.float64)
    applies = [(value, prompt) for value, prompt in zip(result, prompts, strict=True) if value is not None]
    values = iter(filled(*zip(*applies, strict=True)))
    return np.array([0.0 if value is None else next(values) for value in result], np.float64)


def _counts(results: Mapping[str, list[float | None]]) -> dict[str, np.ndarray]:
    """What functions count, by `function/what`."""
    counts = {}
    for function, values in results.items():
        counted = [value.counts if isinstance(value, Verdict) else {} for value in values]
        for name in dict.fromkeys(name for one in counted for name in one):
            counts[f"{function}/{name}"] = np.array([one.get(name, 0) for one in counted], np.float32)
    return counts


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
