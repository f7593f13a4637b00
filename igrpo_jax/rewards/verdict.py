"""A reward that knows why: a number, the reason for it, and the answer that was read."""

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
}
"""Every reason a verdict may have, and what it means."""


class Verdict(float):
    """The reward of one completion, with `reason` (a key of `REASONS`), the `parsed` answer, and a `message` on errors.

    A verdict is a float, so a function that returns verdicts has TRL's reward signature.

    >>> verdict = Verdict(1.0, "number", parsed="1/2")
    >>> verdict + 1, verdict.reason, verdict.parsed
    (2.0, 'number', '1/2')

    Raises:
      ValueError: for a reason outside `REASONS`.
    """

    reason: str
    parsed: str | None
    message: str

    def __new__(cls, value: float | int, reason: str, parsed: str | None = None, message: str = "") -> "Verdict":
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}; a verdict's reason is one of {', '.join(REASONS)}")
        verdict = super().__new__(cls, value)
        verdict.reason, verdict.parsed, verdict.message = reason, parsed, message
        return verdict

    def __reduce__(self) -> tuple[Any, ...]:
        return Verdict, (float(self), self.reason, self.parsed, self.message)

    def __repr__(self) -> str:
        return f"Verdict({float(self)}, {self.reason!r}, parsed={self.parsed!r})"

    def reading(self, parsed: str | None) -> "Verdict":
        """The same verdict about the answer `parsed`."""
        return Verdict(float(self), self.reason, parsed, self.message)
