"""How many steps each arm takes, so that the study's budget is equal."""

from collections.abc import Mapping
from dataclasses import replace

from igrpo_jax.config import Config
from igrpo_jax.learning.spending import LIMITS, planned


def decided(budget: str, *, baseline: bool) -> set[str]:
    """The fields that no arm may override, for the study decides them."""
    limits = {f"train.{field}" for field in LIMITS.values()}
    return {"seed", *limits} | (set() if baseline else {"train.steps"})


def matched(configs: Mapping[str, Config], baseline: str, budget: str) -> dict[str, Config]:
    """The arms' configs with as many steps as the budget allows.

    What is not known ahead, tokens and seconds, gets steps for about as many completions as the baseline samples, and
    a limit when the baseline has been run, see `limited`.

    Raises:
      ValueError: one step of an arm is more than the whole budget.
    """
    name = budget if budget in planned(configs[baseline]) else "sampled_completions"
    total = configs[baseline].train.steps * planned(configs[baseline])[name]
    made = {}
    for arm, config in configs.items():
        a_step = planned(config)[name]
        if a_step > total:
            raise ValueError(
                f"arm {arm!r}: one step takes {a_step} {name.replace('_', ' ')} and the budget is {total}; lower its "
                f"train.problems_per_step, or raise the train.steps of {baseline!r}"
            )
        steps = config.train.steps if arm == baseline else round(total / a_step)
        made[arm] = replace(config, train=replace(config.train, steps=steps))
    return made


def is_measured(budget: str) -> bool:
    """Whether the baseline must have been run before the others know their budget."""
    return budget in LIMITS


def limited(config: Config, budget: str, total: float) -> Config:
    """The config of an arm that ends when it has spent what the baseline's run of the same seed has."""
    value = total if budget == "seconds" else round(total)
    return replace(config, train=replace(config.train, **{LIMITS[budget]: value}))
