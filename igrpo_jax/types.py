"""The words every other file uses: shape letters, and data that crosses function boundaries.

| letter | meaning |
|---|---|
| P | problems in a step |
| G | samples a problem |
| L | prompt tokens |
| T | completion tokens |
| S | L + T |
| C | slots: tokens of a prompt and its G completions, packed |
| V | vocabulary |
| D | model width |
| N, K | query heads, key/value heads |
| H | head size |
| F | MLP width |

Whatever crosses `jax.jit` is a `NamedTuple`; whatever is static is a frozen dataclass (see `igrpo_jax.config`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

AnyArray = jax.Array | np.ndarray
"""On a device or on the host."""

KeyArray = jax.Array
"""A typed `jax.random.key`."""

PyTree = Any
"""A nested structure of arrays that only its owner looks into."""


DRAFT, REFINE = 1, 2
"""Stages of training. A stage's number is part of the random key; even ones have a draft in their prompts."""

BARE, DRAFTED = 3, 4
"""Stages of evaluation: answers to the bare question, and with a draft in the prompt."""


def in_round(stage: int, number: int) -> int:
    """The number of a stage that is gone through several times, in round `number` from 0.

    >>> in_round(REFINE, 0), in_round(REFINE, 1), in_round(DRAFTED, 1)
    (2, 6, 8)
    """
    return stage + 4 * number


Message = Mapping[str, str]
"""A turn of a conversation: who speaks, `role` (system, user, assistant), and what is said, `content`."""

Question = str | Sequence[Message]
"""What a model is asked: a text, or a conversation whose last message is the user's."""


class Problem(NamedTuple):
    """One question with everything a reward may want to know about it.

    Attributes:
      id: identity of the problem inside its source; randomness is keyed by it.
      question: what is put to the model.
      columns: further columns of the row, handed to rewards by keyword; `answer` holds the gold answer.
    """

    id: int
    question: Question
    columns: Mapping[str, Any]


class Request(NamedTuple):
    """Completions that are wanted of one prompt.

    Attributes:
      index: whose prompt it is, in the caller's numbering.
      id: the problem's identity, from 0 to below 2**32; with `stage` it keys the randomness.
      stage: stage number.
      prompt: token ids.
      num_samples: G.
    """

    index: int
    id: int
    stage: int
    prompt: list[int]
    num_samples: int


class Samples(NamedTuple):
    """Completions on the host: of one prompt, rows = [G], or of P prompts, rows = [P, G].

    Attributes:
      tokens: int32[*rows, T]; the end token is part of the completion, positions past `lengths` are 0.
      lengths: int32[*rows]; number of tokens of each completion, the end token included.
      ended: bool[*rows]; True where a stop token or stop string was reached, False where the length limit cut.
      logprobs: float32[*rows, T] natural-log probability of each token under the distribution it was drawn from, 0
        past `lengths`.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    ended: np.ndarray
    logprobs: np.ndarray


def stack(groups: Sequence[Samples]) -> Samples:
    """Samples [G] of P prompts as [P, G]."""
    return Samples(*(np.stack(arrays) for arrays in zip(*groups, strict=True)))


Follow = Callable[[list[tuple[Request, Samples]]], list[Request]]
"""What becomes of finished requests: reads them, and returns the requests that follow from them."""


class Usage(NamedTuple):
    """How sampling spent its time.

    Attributes:
      tokens: that were decoded: each completion's first is prefill's.
      row_steps: decode steps times the rows that each computed.
      seconds: on the device's programs, by stage number.
      waited: seconds without any work for the device, waiting for what follows.
    """

    tokens: int
    row_steps: int
    seconds: dict[int, float]
    waited: float


class Batch(NamedTuple):
    """What `igrpo_loss` knows about the completions besides the policy's log-probabilities of them.

    Attributes:
      lengths: completion tokens of each row, the end token included.
      advantages: one number a row.
      old_logprobs: log-probabilities under the policy that sampled; None means "the policy being trained", that is a
        ratio of exactly 1 whose gradient is the policy gradient.
      ref_logprobs: log-probabilities under the frozen reference policy; needed if and only if `beta > 0`.
      weights: each token's share of the loss, made by `token_weights` from the *whole* batch, so that micro-batches add
        up to it; None means that this batch is the whole.
    """

    lengths: Int[AnyArray, "*rows"]
    advantages: Float[AnyArray, "*rows"]
    old_logprobs: Float[AnyArray, "*rows T"] | None = None
    ref_logprobs: Float[AnyArray, "*rows T"] | None = None
    weights: Float[AnyArray, "*rows T"] | None = None


class Shapes(NamedTuple):
    """Static lengths of a run, in tokens; every program is compiled for them.

    Attributes:
      prompt: L of bare prompts.
      refinement: L of prompts with a draft.
      completion: T.
    """

    prompt: int
    refinement: int
    completion: int

    def of(self, stage: int) -> int:
        """L of a stage."""
        return self.prompt if stage % 2 else self.refinement


class Packed(NamedTuple):
    """Where the tokens of G completions and their prompt are when they lie end to end, without padding, in C slots.

    Completions come first, and the prompt behind them.

    Attributes:
      places: of each slot, which token is there: g T + t of a completion, G T + l of the prompt, G T + L if none.
      slots: of each completion's token, where it is; C for what is only padding.
      prompt_slots: of each of the prompt's, likewise.
    """

    places: Int[AnyArray, "P C"]
    slots: Int[AnyArray, "P G T"]
    prompt_slots: Int[AnyArray, "P L"]


Divide = Callable[[str, Callable[[Any], Sequence[Any]], Sequence[Any]], list[Any]]
"""`divide(name, work, items)` is `list(work(items))`, one result an item; every process of a run does a part of it."""


def alone(name: str, work: Callable[[Any], Sequence[Any]], items: Sequence[Any]) -> list[Any]:
    """`Divide` for a run of one process."""
    return list(work(items))
