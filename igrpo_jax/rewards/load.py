"""From the names in a config to reward functions."""

import difflib

from igrpo_jax.config import JudgeConfig, RewardConfig
from igrpo_jax.rewards import builtin
from igrpo_jax.rewards.builtin import Reward
from igrpo_jax.rewards.judge import load_judge
from igrpo_jax.rewards.own import PREPARE_SECONDS, Own
from igrpo_jax.rewards.score import Rewards
from igrpo_jax.rewards.workers.pool import GraderPool

_BUILTIN = ("accuracy", "format", "gym", "ended", "judge")
_OWN = "package.module:function or path/to/file.py:function"


def load_rewards(config: RewardConfig, judge: JudgeConfig | None = None) -> Rewards:
    """Finds the functions that a config names: `accuracy`, `format`, `gym`, `ended`, `judge`, or one of the user's own.

    These are `package.module:function`, imported from `sys.path` (modules beside the config file are there) and the
    current directory, or `path/to/file.py:function`; the user's own run in a process of their own, which starts here.
    Grader processes start at the first use. `judge` says whom the reward of that name asks.

    Raises:
      ValueError: for a name that cannot be resolved, and for weights that do not match.
    """
    weights = tuple(config.weights) or (1.0,) * len(config.functions)
    if not config.functions:
        raise ValueError(f"reward.functions is empty; name at least one of {', '.join(_BUILTIN)} or {_OWN}")
    if len(weights) != len(config.functions):
        raise ValueError(
            f"reward.weights has {len(weights)} numbers for {len(config.functions)} functions "
            f"({', '.join(config.functions)}); give one a function, or none for 1 each"
        )
    if len(set(config.functions)) != len(config.functions):
        raise ValueError(
            f"reward.functions names a function twice: {', '.join(config.functions)}; raise its weight instead"
        )
    pool = GraderPool(config.workers, config.deadline, config.memory_mb)
    built_in = {name: _builtin(name, pool, judge) for name in config.functions if ":" not in name}
    apart = GraderPool(1, config.call_deadline, config.memory_mb, prepare_seconds=PREPARE_SECONDS, heard=True)
    try:
        own = {name: Own(name, apart, deadline=config.call_deadline) for name in config.functions if ":" in name}
    except BaseException:
        apart.close()
        if "judge" in built_in:
            built_in["judge"].close()  # pyright: ignore[reportFunctionMemberAccess]
        raise
    functions = [(built_in | own)[name] for name in config.functions]
    # Metrics read rewards/<name>/mean, so the bare name is used where it is the only one.
    short = [name.rpartition(":")[2] for name in config.functions]
    names = [bare if short.count(bare) == 1 else full for bare, full in zip(short, config.functions, strict=True)]
    return Rewards(
        dict(zip(names, functions, strict=True)), weights=weights, pool=pool, apart=apart, errors=config.errors
    )


def _builtin(name: str, pool: GraderPool, judge: JudgeConfig | None) -> Reward:
    if name == "accuracy":
        return builtin.accuracy(pool)
    if name == "gym":
        return builtin.gym(pool)
    if name == "format":
        return builtin.format_reward
    if name == "ended":
        return builtin.ended_reward
    if name == "judge":
        return load_judge(judge or JudgeConfig())
    close = difflib.get_close_matches(name, _BUILTIN, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"unknown reward {name!r}; {hint}built in are {', '.join(_BUILTIN)}; write your own as {_OWN}")
