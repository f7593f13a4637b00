"""From the config's source specs to what a run reads: batches by step, evaluation sets, the longest prompt."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from igrpo_jax.config import Config
from igrpo_jax.data.batches import make_batches
from igrpo_jax.data.filter import usable
from igrpo_jax.data.source import load_source
from igrpo_jax.types import Problem


class Data(NamedTuple):
    """Attributes:
    batches: step -> the problems of that step, a pure function.
    evals: problems of each evaluation set by name.
    longest_prompt: tokens of the longest stage-one prompt.
    """

    batches: Callable[[int], list[Problem]]
    evals: dict[str, list[Problem]]
    longest_prompt: int


def load_problems(config: Config, *, count_tokens: Callable[[Sequence[str]], list[int]]) -> Data:
    """Loads every source, drops what cannot be used and says what was dropped.

    Raises:
      ValueError: a source cannot be loaded, or nothing of it is usable.
    """
    from igrpo_jax.rewards.compare import gold_is_parsable

    longest = 1

    def load(spec: str):
        nonlocal longest
        source = load_source(spec, question_column=config.data.question_column, answer_column=config.data.answer_column)
        kept, report = usable(
            source,
            count_tokens=count_tokens,
            max_prompt_length=config.prompt.max_prompt_length,
            gold_is_parsable=gold_is_parsable,
        )
        print(report)
        longest = max(longest, report.longest_prompt)
        return kept

    train = [load(spec) for spec in config.data.train]
    evals = {}
    for spec in config.data.eval:
        source = load(spec)
        count = min(config.eval.problems or len(source), len(source))
        evals[source.name] = [source[i] for i in range(count)]
    batches = make_batches(
        train,
        mixture=config.data.mixture,
        problems_per_step=config.train.problems_per_step,
        seed=config.seed,
    )
    return Data(batches, evals, longest)
