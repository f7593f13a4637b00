"""The best draft of each problem in the steps so far, which may stand in its prompt again in a later epoch.

It is the one thing besides the train state that a step leaves to the next, and so lies beside it in checkpoints.
"""

import json
from collections.abc import Mapping, Sequence

from igrpo_jax.drive import Draft, Group
from igrpo_jax.types import Problem

Past = Mapping[int, Draft]
"""The best draft so far by problem id."""

NAME = "drafts.json"
"""What it is called in a checkpoint."""


def remembered(past: Past, problems: Sequence[Problem], drafts: Sequence[Group], *, step: int) -> Past:
    """The best drafts so far, after a step; of equally good ones the first.

    Args:
      past: those before the step.
      problems: that were drafted.
      drafts: of each.
      step: number of the step, from 0.
    """
    found = dict(past)
    for problem, group in zip(problems, drafts, strict=True):
        best = group.completion(int(group.scores.total.argmax()))
        if problem.id not in found or best.reward > found[problem.id].reward:
            found[problem.id] = best._replace(step=step + 1)
    return found


def encoded(past: Past) -> bytes:
    """As a file of a checkpoint."""
    return json.dumps({str(number): draft for number, draft in past.items()}, separators=(",", ":")).encode()


def decoded(file: bytes) -> Past:
    """What `encoded` was given.

    >>> decoded(encoded({7: Draft(1, 0, [3, 4], 1.0, True, 2)}))
    {7: Draft(stage=1, index=0, tokens=[3, 4], reward=1.0, right=True, step=2)}
    """
    return {int(number): Draft(*draft) for number, draft in json.loads(file).items()}
