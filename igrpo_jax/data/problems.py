"""From the config's source specs to what a run reads: batches by step, evaluation sets, the longest prompt."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from igrpo_jax.config import Config, RewardConfig, extra_problems
from igrpo_jax.data.batches import make_batches
from igrpo_jax.data.filter import EXAMPLES, usable
from igrpo_jax.data.source import Source, load_source
from igrpo_jax.edges.printable import printable
from igrpo_jax.types import Divide, Problem, Question, alone

SERIAL_GOLDS = 1000
"""Sets with fewer gold answers are checked without grader processes."""

NAMED = 100
"""Dropped problems of an evaluation set that are named: each of them is missing in its scores."""


class Data(NamedTuple):
    """Attributes:
    batches: step -> the problems of that step and those that may take the place of some, a pure function.
    evals: problems of each evaluation set by name; like those of steps they have the columns of all sources.
    longest_prompt: tokens of the longest stage-one prompt.
    longest_trained: of the longest one that is trained on; of the longest of all where none is.
    fingerprints: of each source's usable problems, their number and what tells them from others; of an endless one's
      first problems.
    """

    batches: Callable[[int], list[Problem]]
    evals: dict[str, list[Problem]]
    longest_prompt: int
    longest_trained: int
    fingerprints: dict[str, tuple[int, str]]


def load_problems(
    config: Config,
    *,
    count_tokens: Callable[[Sequence[Question]], list[int]],
    divide: Divide = alone,
    train: bool = True,
    columns: Iterable[str] = (),
    say: Callable[[str], None] = lambda text: print(printable(text)),
) -> Data:
    """Opens every source, drops what cannot be used and says what was dropped.

    Args:
      config: data, prompt, reward, eval, train.problems_per_step and seed are read.
      count_tokens: tokens of the prompts that these questions become, 0 where there is none.
      divide: lets every process of a run read and judge a part of the problems.
      train: whether to read the training sources; without them there are no batches.
      columns: names that every problem's columns have, None where its source has no such column.
      say: gets a line about each source.

    Raises:
      ValueError: a source cannot be loaded, or nothing of it is usable.
    """
    from igrpo_jax.rewards.compare import gold_is_parsable
    from igrpo_jax.rewards.gym import check_task

    fingerprints: dict[str, tuple[int, str]] = {}

    def load(spec: str, examples: int = EXAMPLES) -> tuple[Source, int]:
        source = load_source(spec, question_column=config.data.question_column, answer_column=config.data.answer_column)
        kept, report = usable(
            source,
            count_tokens=count_tokens,
            max_prompt_length=config.prompt.max_prompt_length,
            gold_is_parsable=gold_is_parsable,
            map_golds=partial(_map_golds, config.reward),
            divide=divide,
            examples=examples,
        )
        say(str(report))
        fingerprints[spec] = (report.kept, report.fingerprint)
        if "gym" in config.reward.functions and "gym_task" in kept[0].columns:
            check_task(kept[0].columns["gym_task"])
        return kept, report.longest_prompt

    trained = [load(spec) for spec in config.data.train if train]
    evals: dict[str, Source] = {}
    longest = [length for _, length in trained]
    longest_trained = max(longest, default=0)
    for spec in config.data.eval:
        source, length = load(spec, examples=NAMED)
        if source.name in evals:
            raise ValueError(f"two evaluation sets are called {source.name}; give one of them a name with label=...")
        if getattr(source, "endless", False) and not config.eval.problems:
            raise ValueError(f"{spec} is endless; say how many of its problems to evaluate with --eval.problems")
        evals[source.name] = source
        longest.append(length)
    sources = [source for source, _ in trained]
    batches = no_batches
    if train:
        batches = make_batches(
            sources, mixture=config.data.mixture, problems_per_step=config.train.problems_per_step, seed=config.seed,
            extra=extra_problems(config),
        )  # fmt: skip
    # A reward gets the same columns whichever problems it grades together; None where a problem has no such column.
    none = {name: None for source in (*sources, *evals.values()) for name in source[0].columns} | dict.fromkeys(columns)

    def whole(problems: Iterable[Problem]) -> list[Problem]:
        return [problem._replace(columns=none | dict(problem.columns)) for problem in problems]

    first = {name: range(min(config.eval.problems or len(source), len(source))) for name, source in evals.items()}
    sets = {name: whole(source[i] for i in first[name]) for name, source in evals.items()}
    return Data(lambda step: whole(batches(step)), sets, max(longest), longest_trained or max(longest), fingerprints)


def no_batches(step: int) -> list[Problem]:
    """Batches where no training sources were read."""
    raise ValueError(f"step {step} has no problems: training data was not read; load it to train")


def _map_golds(config: RewardConfig, check: Callable[[str], bool], golds: Iterable[str]) -> list[bool]:
    """Checks many gold answers at once: LaTeX takes some ten milliseconds each, so large sets go to the graders."""
    golds = list(golds)
    if len(golds) < SERIAL_GOLDS:
        return [check(gold) for gold in golds]
    from igrpo_jax.rewards.workers.pool import GraderPool

    with GraderPool(config.workers, config.deadline, config.memory_mb) as pool:
        return [bool(verdict) for verdict in pool.map(check, [(gold,) for gold in golds])]
