"""The completions of a request while they come in from the slots that draw them."""

from collections.abc import Sequence

import numpy as np

from igrpo_jax.sampling.assignment import Task
from igrpo_jax.sampling.stopping import Text, ends
from igrpo_jax.types import Request, Samples


class Collected:
    """The completions of one request, of which each of its slots delivers some.

    Attributes:
      request: the request.
      missing: number of completions that are not there yet.
      tokens: int32[G, T].
      logprobs: float32[G, T].
      lengths: int32[G].
    """

    def __init__(self, request: Request, length: int):
        """Makes room for completions of up to `length` tokens."""
        group = request.num_samples
        self.request, self.missing = request, group
        self.tokens = np.zeros((group, length), np.int32)
        self.logprobs = np.zeros((group, length), np.float32)
        self.lengths = np.zeros(group, np.int32)

    def add(self, task: Task, tokens: np.ndarray, logprobs: np.ndarray, lengths: np.ndarray) -> None:
        """Takes the completions of a task out of a slot's arrays [W, T], which may have more lanes and more room."""
        rows, size = slice(task.first, task.first + task.count), self.tokens.shape[1]
        self.tokens[rows], self.logprobs[rows] = tokens[: task.count, :size], logprobs[: task.count, :size]
        self.lengths[rows] = lengths[: task.count]
        self.missing -= task.count

    def samples(self, stop_ids: np.ndarray, strings: Sequence[str], text: Text) -> Samples:
        """All completions, each up to its end and filled up with zeros; see `stopping.ends`."""
        lengths, ended = ends(self.tokens, self.lengths, stop_ids=stop_ids, strings=strings, text=text)
        beyond = np.arange(self.tokens.shape[1]) >= lengths[:, None]
        self.tokens[beyond], self.logprobs[beyond] = 0, 0.0
        return Samples(self.tokens, lengths, ended, self.logprobs)
