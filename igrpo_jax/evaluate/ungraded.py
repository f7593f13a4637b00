"""Rewards for questions whose answer nobody has given: they read answers out, and call none of them right or wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from igrpo_jax.drive import Reward
from igrpo_jax.rewards import Scores, extract_answer


def ungraded(prompts: Sequence[Any], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Scores:
    """The answers that completions give; none of them is right, or wrong."""
    nothing, none = np.zeros(len(completions), np.float32), np.zeros(len(completions), np.int32)
    return Scores(nothing, {"accuracy": nothing * np.nan}, read(completions), [""] * len(completions), none, none)


class Judged:
    """A judge that is asked without gold answers; the answers that completions give are read out beside it.

    Attributes:
      waits: calls should be made side by side.
    """

    waits = True

    def __init__(self, judge: Reward):
        """Takes the judge as a reward, see `load_rewards`."""
        self._judge = judge

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], columns: Mapping[str, Sequence[Any]]
    ) -> Scores:
        """What the judge says of completions, and the answers that they give."""
        return self._judge(prompts, completions, columns)._replace(parsed=read(completions))


def read(completions: Sequence[str]) -> list[str | None]:
    """The answer that each completion gives, if any."""
    return [extract_answer(completion) for completion in completions]
