"""Grading divided among the processes of a run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from igrpo_jax.rewards.score import Scores

Score = Callable[[Sequence[str], Sequence[str], Mapping[str, Sequence[Any]]], Scores]
"""Scores n completions given their n prompts and columns of n values."""


def divided(score: Score, *, index: int, count: int, share: Callable[[str, Any], list[Any]]) -> Score:
    """The same function, which grades the part of one process and learns the others' from them.

    Args:
      score: grades completions.
      index: of this process.
      count: of all processes.
      share: gives every process's value of a name, in order; calls come in the same order everywhere.
    """

    def part(prompts, completions, columns) -> tuple[Scores | None, str | None]:
        size = len(completions)
        rows = slice(size * index // count, size * (index + 1) // count)
        if rows.start == rows.stop:
            return None, None
        try:
            given = {name: values[rows] for name, values in columns.items()}
            return score(prompts[rows], completions[rows], given), None
        except Exception as error:  # whatever it is: the others wait for an answer
            return None, str(error) or repr(error)

    def whole(prompts: Sequence[str], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Scores:
        answers = share("scores", part(prompts, completions, columns))
        for _, error in answers:
            if error is not None:
                raise ValueError(error)
        return Scores.join([scores for scores, _ in answers if scores is not None])

    return whole
