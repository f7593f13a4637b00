"""The user's reward functions in the process that calls them: found by path, described, and called."""

import functools
import importlib
import inspect
import numbers
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from igrpo_jax.edges.user_code import path_of, run_file
from igrpo_jax.rewards.verdict import Verdict

_SHOWN = 80


def load(path: str) -> None:
    """Imports a function; what is wrong with it `describe` tells."""
    _found(path)


def describe(path: str) -> dict[str, Any]:
    """The names of a function's parameters, or what is wrong."""
    function, error = _found(path)
    if function is None:
        return {"error": error}
    named, needed = parameters(function)
    return {"named": None if named is None else sorted(named), "needed": sorted(needed)}


def call(path: str, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What a function returns, as plain data."""
    function, error = _found(path)
    if function is None:
        raise ValueError(error)
    result = function(**columns)
    if not isinstance(result, list | tuple | np.ndarray):
        return {"returned": f"{type(result).__name__} {str(result)[:_SHOWN]!r}"}
    return {"values": [_plain(value) for value in result]}


def parameters(function: Callable[..., Any]) -> tuple[set[str] | None, set[str]]:
    """The names of a function's parameters, None where it takes any, and of those without a default."""
    signature = inspect.signature(function).parameters.values()
    own = [p for p in signature if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = {p.name for p in own if p.default is p.empty}
    return None if any(p.kind is p.VAR_KEYWORD for p in signature) else {p.name for p in own}, needed


def _plain(value: Any) -> Any:
    if isinstance(value, Verdict):
        return {"verdict": [float(value), value.reason, value.parsed, value.message]}
    if value is None:
        return None
    if isinstance(value, numbers.Real | np.bool_):
        try:
            return float(value)
        except OverflowError:
            return {"shown": f"a number of {type(value).__name__} beyond all floats"}
    return {"shown": repr(value)[:_SHOWN]}


@functools.cache
def _found(path: str) -> tuple[Callable[..., Any] | None, str]:
    """A function and nothing, or None and what is wrong."""
    place, _, name = path.rpartition(":")
    try:
        module = _file(place, path) if place.endswith(".py") else _module(place, path)
    except ValueError as error:
        return None, str(error)
    function = getattr(module, name, None)
    if function is None:
        defined = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        return None, f"reward {path!r}: {place} has no {name!r}; its functions are {', '.join(defined) or 'none'}"
    if not callable(function) or inspect.iscoroutinefunction(function):
        return None, (
            f"reward {path!r} is no function; write `def {name}(prompts, completions, **columns)` returning a list"
        )
    return function, ""


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
