"""A study as values: arms that differ from one config in some fields, seeds, and the budget that is made equal."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from igrpo_jax.config import Config
from igrpo_jax.edges.checks import check
from igrpo_jax.edges.user_code import overridden
from igrpo_jax.study.budget import decided, matched

Budget = Literal[
    "problems", "sampled_completions", "sampled_tokens", "trained_tokens", "optimizer_steps", "seconds"
]  # fmt: skip

METRICS = (
    "eval/mean/*",
    "eval/*/avg",
    "eval/*/maj",
    "reward",
    "entropy",
    "completions/mean_length",
    "cost/step_s",
    "cost/peak_gb",
)
"""What a study compares unless it says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the things that are compared."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the study's config that differ, like `{"algorithm.beta": 0.001}`."""
    label: str = ""
    """What the arm is called in tables; empty for its name."""
    paper: Mapping[str, float | int] = field(default_factory=dict)
    """What a paper reports, by metric; shares as shares, 0.6987 for 69.87."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Arms x seeds of one config."""

    title: str
    """What is asked."""
    config: Config
    """What all arms share; its seed is replaced by the study's."""
    arms: Mapping[str, Arm]
    """The arms by name; a name is a directory's too."""
    baseline: str
    """The arm that the others are compared with; its `train.steps` decide how large the budget is."""
    budget: Budget = "sampled_completions"
    """What is equal in all arms: problems, sampled completions or tokens of both stages, trained tokens, optimizer
    steps, or seconds."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each arm is run with each of them."""
    metrics: tuple[str, ...] = METRICS
    """What is compared, by name; `*` stands for anything. `entropy@30%` is the entropy at 30 % of training."""
    source: str = ""
    """What the arms' `paper` numbers are of."""


def check_study(study: Study) -> dict[str, Config]:
    """Refuses what cannot be meant.

    Returns:
      Each arm's config, with as many steps as the budget gives it.

    Raises:
      ValueError: names the arm and the field.
    """
    _check_values(study)
    configs = {}
    for name, arm in study.arms.items():
        for taken in sorted(decided(study.budget, baseline=name == study.baseline) & arm.overrides.keys()):
            raise ValueError(f"arm {name!r} overrides {taken}, which the study decides; leave it out")
        try:
            configs[name] = overridden(study.config, arm.overrides)
            check(configs[name])
        except ValueError as error:
            raise ValueError(f"arm {name!r}: {error}") from None
    configs = matched(configs, study.baseline, study.budget)
    seen: list[tuple[Config, str]] = []
    for name, config in configs.items():
        for other, its in seen:
            if config == other:
                raise ValueError(f"the arms {its!r} and {name!r} are the same; override something, or leave one out")
        seen.append((config, name))
    return configs


def arms_named(study: Study, names: tuple[str, ...]) -> list[str]:
    """The arms to run: all of them, or those of these names and what they are compared with.

    Raises:
      ValueError: there is no such arm; names the nearest.
    """
    for name in names:
        _known(name, study)
    return [name for name in study.arms if not names or name in (*names, study.baseline)]


def _known(name: str, study: Study) -> None:
    if name not in study.arms:
        near = difflib.get_close_matches(str(name), list(study.arms), 1, 0.4)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no arm {name!r}; {meant}known: {', '.join(map(str, study.arms))}")


def _check_values(study: Study) -> None:
    """Refuses values of a wrong type, names that are no directories, and too little to compare."""
    if not isinstance(study.config, Config):
        raise ValueError("the study's config is no Config; write config=get_config(), say, with that of another file")
    if not isinstance(study.arms, Mapping) or not all(isinstance(arm, Arm) for arm in study.arms.values()):
        raise ValueError("the study's arms must be a dict from names to Arm(...)")
    if len(study.arms) < 2:
        raise ValueError(f"the study has {len(study.arms)} arms; name at least two to compare")
    for name, arm in study.arms.items():
        if not (isinstance(name, str) and re.fullmatch(r"\w[\w.+-]*", name)):
            raise ValueError(f"the arm {name!r} cannot be a directory; use letters, digits and . _ + -")
        for metric, value in arm.paper.items():
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ValueError(f"arm {name!r}: paper says {value!r} for {metric!r}; it must be a number")
    _known(study.baseline, study)
    if study.budget not in get_args(Budget):
        near = difflib.get_close_matches(str(study.budget), get_args(Budget), 1, 0.3)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"the budget {study.budget!r} is not known; {meant}known: {', '.join(get_args(Budget))}")
    if not study.seeds:
        raise ValueError("the study has no seeds; give one at least, three or more for intervals")
    for seed in study.seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0 or study.seeds.count(seed) > 1:
            raise ValueError(f"the seeds are {study.seeds}; they must be whole numbers from 0, each once")
