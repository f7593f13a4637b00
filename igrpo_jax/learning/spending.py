"""What a run has spent, read from its metrics: problems, completions, tokens, optimizer steps, seconds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from igrpo_jax.config import Config
from igrpo_jax.learning.learner import NONFINITE

LIMITS = {"sampled_tokens": "max_sampled_tokens", "trained_tokens": "max_trained_tokens", "seconds": "max_seconds"}
"""What a run may be given a limit of, and the field of `train` that says it."""

MOST = 10
"""So many times `train.steps` are the most that a run with a limit takes: one that trains on nothing would not end."""


def planned(config: Config) -> dict[str, int]:
    """What a step of a run takes according to its config, as far as that is known ahead.

    >>> planned(Config())
    {'problems': 128, 'sampled_completions': 1024, 'optimizer_steps': 1}
    """
    algorithm, problems = config.algorithm, config.train.problems_per_step
    refinements = algorithm.num_generations * (algorithm.rounds if algorithm.num_drafts else 1)
    return {
        "problems": problems,
        "sampled_completions": problems * (algorithm.num_drafts + refinements),
        "optimizer_steps": algorithm.num_iterations,
    }


def training(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of training steps among those of a run."""
    return [record for record in records if "num_tokens" in record]


def spent(records: Sequence[Mapping[str, Any]], config: Config) -> dict[str, float]:
    """What the steps of these records took.

    Args:
      records: of metrics.jsonl, one a step; others are left out.
      config: of the run.

    Returns:
      `problems`, `sampled_completions` and `sampled_tokens` of all stages, `trained_tokens` and `optimizer_steps` over
      all iterations, and `seconds` of the steps, without evaluations and checkpoints; what is compiled depends on what
      ran before, so a step that compiled counts as much as the others do on average.
    """
    steps, plan = training(records), planned(config)
    extra = sum(_value(step, "sampling/extra_problems") for step in steps)
    problems = len(steps) * plan["problems"] + extra
    completions = problems * plan["sampled_completions"] / plan["problems"]
    if steps and all("num_completions" in step for step in steps):
        completions = sum(_value(step, "num_completions") for step in steps)
    times = [_value(step, "step_time") for step in steps if not step.get("compile/count")]
    taken = [0 if step.get("update/skipped") else plan["optimizer_steps"] - _value(step, NONFINITE) for step in steps]
    return {
        "problems": float(problems),
        "sampled_completions": float(completions),
        "sampled_tokens": float(sum(_value(step, "num_tokens") for step in steps)),
        "trained_tokens": float(sum(_value(step, "train/tokens") for step in steps)),
        "optimizer_steps": float(sum(taken)),
        "seconds": sum(times) / len(times) * len(steps) if times else sum(_value(s, "step_time") for s in steps),
    }


class Spending:
    """How many steps a run takes in all, as far as can be told from what it has spent so far."""

    def __init__(self, config: Config, records: Sequence[Mapping[str, Any]]):
        """Takes up what a run that is resumed has spent.

        Args:
          config: `train.steps` and the limits are read.
          records: its metrics so far.
        """
        self._config, self._records = config, [*training(records)]
        self._limits = {name: float(getattr(config.train, field)) for name, field in LIMITS.items()}

    @property
    def limited(self) -> bool:
        """Whether the run has a limit besides `train.steps`."""
        return any(self._limits.values())

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Takes up a step."""
        if self.limited:
            self._records.append(dict(metrics))

    def expecting(self, done: int, agree: Callable[[int], int]) -> Config:
        """The config with as many steps as the run is expected to take; with as many as are done where it is to end.

        Args:
          done: steps that are completed.
          agree: gives the first process's number in all of them: the others do not know what was spent before.
        """
        if not self.limited:
            return self._config
        return replace(self._config, train=replace(self._config.train, steps=agree(self.steps(done))))

    def steps(self, done: int) -> int:
        """All steps of the run, those to come included; as many as are done where it is to end.

        It ends where its limit is nearest: after another step as long as those so far it would be further off.
        """
        steps = self._config.train.steps
        if not self.limited or not self._records:
            return steps
        taken = spent(self._records, self._config)
        share = max(taken[name] / limit for name, limit in self._limits.items() if limit)
        if share and share * (done + 0.5) / done >= 1:
            return done
        expected = max(done + 1, round(done / share)) if share else MOST * steps
        return min(expected, MOST * steps)


def _value(record: Mapping[str, Any], name: str) -> float:
    """A metric of a record, 0 where it is missing or was not finite."""
    return float(record.get(name) or 0.0)
