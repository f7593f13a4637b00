"""One call of one reward function: what it is given, where it runs, and what counts as its result."""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from igrpo_jax.edges.printable import printable, say
from igrpo_jax.rewards.importing import parameters
from igrpo_jax.rewards.judge import Judge
from igrpo_jax.rewards.own import Failed, Own
from igrpo_jax.rewards.verdict import Verdict

LARGEST = float(np.finfo(np.float32).max)

_FIXES = {
    "timeout": "took longer than reward.call_deadline, {deadline:g} s; raise that, or make it faster",
    "memory": "needed more memory than reward.memory_mb; raise that, or load what is large when the module is imported",
}
_WARNED: set[tuple[str, str]] = set()


def called(
    name: str, function: Callable[..., Any], columns: Mapping[str, Sequence[Any]], size: int, *, errors: str
) -> list[float | None]:
    """One function's results for n completions, checked.

    Args:
      name: of the function, for what errors say.
      function: one of TRL's signature; an `Own` runs in its process, others here.
      columns: everything that there is by name, each of n values.
      size: n.
      errors: "stop" or "zero", as in `config.RewardConfig`.

    Raises:
      ValueError: see `Rewards.score`.
    """
    given = _arguments(name, function, columns)
    wanted = f"it must return a list of {size} finite numbers or None, one a completion"
    if isinstance(function, Judge):
        result = function(**given)
    elif isinstance(function, Own):
        result = _apart(name, function, given, wanted, errors)
    else:
        result = _here(name, function, given)
    if not isinstance(result, list | tuple | np.ndarray):
        raise ValueError(f"reward {name!r} returned {type(result).__name__} {str(result)[:80]!r}; {wanted}")
    if len(result) != size:
        raise ValueError(f"reward {name!r} returned {len(result)} values for {size} completions; {wanted}")
    values: list[float | None] = []
    for index, value in enumerate(result):
        if value is None or _is_finite(value) or (isinstance(value, Verdict) and value.untold):
            values.append(value if value is None or isinstance(value, Verdict) else float(value))
            continue
        message = f"reward {name!r} returned {_short(value)} for completion {index}; {wanted}"
        if errors == "stop":
            raise ValueError(f"{message}, within float32 (--reward.errors zero takes 0 instead)")
        values.append(Verdict(0.0, "error", message=message))
    return values


def parameters_of(function: Callable[..., Any]) -> tuple[set[str] | None, set[str]]:
    """The names of a function's parameters, None where it takes any, and of those without a default."""
    return function.parameters if isinstance(function, Own | Judge) else parameters(function)


def _is_finite(value: Any) -> bool:
    if not isinstance(value, numbers.Real | np.bool_):
        return False
    try:
        return math.isfinite(value) and abs(float(value)) <= LARGEST
    except OverflowError:
        return False


def _short(value: Any) -> str:
    return "a number beyond all floats" if isinstance(value, int) and abs(value) > LARGEST else repr(value)[:80]


def _arguments(name: str, function: Callable[..., Any], columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The columns that a function takes, as lists of its own."""
    named, needed = parameters_of(function)
    missing = sorted(needed - set(columns))
    if missing:
        raise ValueError(
            f"reward {name!r} needs the column {', '.join(missing)}, but the data has "
            f"{', '.join(sorted(set(columns) - {'prompts', 'completions'})) or 'none'}; choose a data source that has "
            "it, or another reward"
        )
    return {key: list(values) for key, values in columns.items() if named is None or key in named}


def _apart(name: str, function: Own, given: Mapping[str, list[Any]], wanted: str, errors: str) -> list[Any]:
    """The results of a function of the user's own; where it fails, by row or as an error that names one."""
    try:
        try:
            return function(**given)
        except Failed as failed:
            if errors == "zero":
                _warn(name, failed)
                return function.each(given, failed)
            row = function.row(given, failed)
            raise ValueError(_told(name, function, failed, row)) from failed
    except TypeError as error:
        raise ValueError(f"reward {name!r} returned {error}; {wanted}") from error


def _told(name: str, function: Own, failed: Failed, row: int | None) -> str:
    verdict = failed.verdict
    if verdict.reason in _FIXES:
        what = _FIXES[verdict.reason].format(deadline=function.deadline)
    elif verdict.message.startswith("the grader process"):
        what = f"ended badly: {verdict.message}; it must return one number or None a completion"
    else:
        what = f"raised {verdict.message}; it must return one number or None a completion"
    where = "" if row is None else f" (completion {row} alone does it)"
    return f"reward {name!r} {what}{where}; with --reward.errors zero such completions get 0"


def _warn(name: str, failed: Failed) -> None:
    """Says once a kind of failure that completions get 0 for it."""
    if (name, failed.verdict.reason) not in _WARNED:
        _WARNED.add((name, failed.verdict.reason))
        what = printable(failed.verdict.message or failed.verdict.reason)
        say(f"warning: reward {name!r} failed ({what}); such completions get 0 and are counted")


def _here(name: str, function: Callable[..., Any], given: Mapping[str, list[Any]]) -> Any:
    """What a function returns that runs in this process: a built-in one, or one that was handed over as it is."""
    try:
        return function(**given)
    except Exception as error:
        raise ValueError(
            f"reward {name!r} raised {type(error).__name__}: {error}; it must return one number or None a completion"
        ) from error
