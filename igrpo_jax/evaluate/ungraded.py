"""A reward that rewards nothing, for questions whose answer nobody has given: it only reads answers out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from igrpo_jax.rewards import Scores, extract_answer


def ungraded(prompts: Sequence[Any], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Scores:
    """The answers that completions give; none of them is right, or wrong."""
    nothing, none = np.zeros(len(completions), np.float32), np.zeros(len(completions), np.int32)
    parsed = [extract_answer(completion) for completion in completions]
    return Scores(nothing, {"accuracy": nothing * np.nan}, parsed, [""] * len(completions), none, none)
