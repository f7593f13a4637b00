"""From the names in a config to reward functions."""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from igrpo_jax.config import RewardConfig
from igrpo_jax.rewards import builtin
from igrpo_jax.rewards.builtin import Reward
from igrpo_jax.rewards.score import Rewards
from igrpo_jax.rewards.workers.pool import GraderPool
from igrpo_jax.user_code import path_of, run_file

_BUILTIN = ("accuracy", "format", "gym", "ended")
_OWN = "package.module:function or path/to/file.py:function"


def load_rewards(config: RewardConfig) -> Rewards:
    """Finds the functions that a config names: `accuracy`, `format`, `gym`, `ended`, or one of the user's own.

    These are `package.module:function`, imported from `sys.path` (modules beside the config file are there) and the
    current directory, or `path/to/file.py:function`. Grader processes start at the first use.

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
    functions = [_imported(name) if ":" in name else _builtin(name, pool) for name in config.functions]
    # Metrics read rewards/<name>/mean, so the bare name is used where it is the only one.
    short = [name.rpartition(":")[2] for name in config.functions]
    names = [bare if short.count(bare) == 1 else full for bare, full in zip(short, config.functions, strict=True)]
    return Rewards(dict(zip(names, functions, strict=True)), weights=weights, pool=pool)


def _builtin(name: str, pool: GraderPool) -> Reward:
    if name == "accuracy":
        return builtin.accuracy(pool)
    if name == "gym":
        return builtin.gym(pool)
    if name == "format":
        return builtin.format_reward
    if name == "ended":
        return builtin.ended_reward
    close = difflib.get_close_matches(name, _BUILTIN, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"unknown reward {name!r}; {hint}built in are {', '.join(_BUILTIN)}; write your own as {_OWN}")


def _imported(path: str) -> Callable[..., Any]:
    """A function of the user's own."""
    place, _, name = path.rpartition(":")
    module = _file(place, path) if place.endswith(".py") else _module(place, path)
    function = getattr(module, name, None)
    if function is None:
        defined = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ValueError(f"reward {path!r}: {place} has no {name!r}; its functions are {', '.join(defined) or 'none'}")
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ValueError(
            f"reward {path!r} is no function; write `def {name}(prompts, completions, **columns)` returning a list"
        )
    return function


def _file(place: str, path: str) -> ModuleType:
    """A file by its path, from the current directory or from where modules are sought."""
    file = path_of(place)
    found = next((there for there in (file, *(Path(entry) / file for entry in sys.path)) if there.is_file()), None)
    if found is None:
        raise ValueError(f"reward {path!r}: there is no file {file.absolute()}; write its path from here")
    try:
        return run_file(found)
    except ValueError as error:
        raise ValueError(f"reward {path!r}: {error}") from error


def _module(place: str, path: str) -> ModuleType:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise ValueError(
            f"reward {path!r}: importing {place!r} raised {type(error).__name__}: {error}; run from the "
            "directory that holds it, install it, or give its file, path/to/file.py:function"
        ) from error
