"""A reward that knows why: a number, the reason for it, and the answer that was read."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

REASONS = {
    "exact": "the answer is the gold answer, letter by letter after normalization",
    "number": "the answer is the same number as the gold answer",
    "symbolic": "the answer is the same expression as the gold answer",
    "ok": "the scorer gave full marks",
    "partial": "the scorer gave part of the marks",
    "unequal": "the answer is something else than the gold answer",
    "no_answer": "nothing in the completion reads as an answer",
    "too_large": "working it out would take more digits or time than any answer needs",
    "parse_failed": "the answer is no mathematics that can be read",
    "bad_gold": "the gold answer is no mathematics that can be read",
    "timeout": "grading took longer than the deadline",
    "memory": "grading needed more memory than allowed",
    "error": "grading raised, or its process died",
    "judged": "the judge has given a score",
    "judge_failed": "the judge has not answered: too slow, not to be reached, or an error of its own, in all tries",
    "judge_unparsed": "the judge has answered without a score in the form that it was asked for",
}
"""Every reason a verdict may have, and what it means."""

UNTOLD = ("judge_failed", "judge_unparsed")
"""Reasons of verdicts that say nothing of the completion; their number is NaN."""


class Verdict(float):
    """The reward of one completion, with `reason` (a key of `REASONS`), the `parsed` answer, and a `message` on errors.

    `counts` are numbers to add up over completions, like tokens that were paid for. A verdict is a float, so a function
    that returns verdicts has TRL's reward signature.

    >>> verdict = Verdict(1.0, "number", parsed="1/2")
    >>> verdict + 1, verdict.reason, verdict.parsed
    (2.0, 'number', '1/2')

    Raises:
      ValueError: for a reason outside `REASONS`.
    """

    reason: str
    parsed: str | None
    message: str
    counts: Mapping[str, float | int]

    def __new__(
        cls,
        value: float | int,
        reason: str,
        parsed: str | None = None,
        message: str = "",
        counts: Mapping[str, float | int] = MappingProxyType({}),
    ) -> "Verdict":
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}; a verdict's reason is one of {', '.join(REASONS)}")
        verdict = super().__new__(cls, value)
        verdict.reason, verdict.parsed, verdict.message, verdict.counts = reason, parsed, message, counts
        return verdict

    @property
    def untold(self) -> bool:
        """Whether this says nothing of the completion."""
        return self.reason in UNTOLD and math.isnan(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Verdict, (float(self), self.reason, self.parsed, self.message, dict(self.counts))

    def __repr__(self) -> str:
        return f"Verdict({float(self)}, {self.reason!r}, parsed={self.parsed!r})"

    def reading(self, parsed: str | None) -> "Verdict":
        """The same verdict about the answer `parsed`."""
        return Verdict(float(self), self.reason, parsed, self.message, self.counts)


def filled(values: Sequence[float], prompts: Sequence[Any]) -> list[float]:
    """Rewards in which NaN is replaced by the mean of the other values of the same prompt, 0 where there is none.

    So a completion of which nothing is known is neither better nor worse than its like.

    >>> filled([1.0, math.nan, 0.0, math.nan], ["a", "a", "a", "b"])
    [1.0, 0.5, 0.0, 0.0]
    """
    known: dict[str, list[float]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        if not math.isnan(value):
            known.setdefault(str(prompt), []).append(value)
    means = {prompt: sum(some) / len(some) for prompt, some in known.items()}
    pairs = zip(values, prompts, strict=True)
    return [means.get(str(prompt), 0.0) if math.isnan(value) else value for value, prompt in pairs]
