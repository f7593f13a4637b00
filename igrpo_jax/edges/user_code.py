"""Files of the user's own, paths and Python: config files and reward functions, with mistakes told in one line."""

import dataclasses
import difflib
import importlib.util
import json
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from igrpo_jax import config as sections
from igrpo_jax.config import Config, fields, to_dict
from igrpo_jax.edges.checks import check_types
from igrpo_jax.edges.secrets import FIX, names_key, refuse_keys


def path_of(text: str) -> Path:
    """A path as the user writes it, `~` and `~name` being home directories.

    Raises:
      ValueError: there is no such home directory.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text} begins with the home directory of nobody known here; write the path out") from None


def run_file(path: Path) -> ModuleType:
    """Runs a Python file; modules beside it can be imported, by it and from then on.

    Raises:
      ValueError: one line with file and line, whatever the file raises.
    """
    path = path.absolute()
    # Behind all others: a neighbor called `math.py` is nobody else's math.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    name = path.stem if _is_free(path) else f"{path.stem} of {path.parent}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    before, sys.modules[name] = sys.modules.get(name), module  # dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise ValueError(mistake(error, path)) from error
    return module


def load_config(name: str, folder: Path) -> Config:
    """Runs `get_config()` of a config file, or reads the config that a run has recorded in its config.json.

    Args:
      name: path of the file, or its name in the folder, with or without `.py`. A study is a config too, the one that
        its arms share.
      folder: where a bare name is sought.

    Raises:
      ValueError: no such file (names the nearest), or what it does wrong, with file and line.
    """
    path = find_config(name, folder)
    if path.suffix == ".json":
        return recorded_config(path)
    module = run_file(path)
    if hasattr(module, "get_study"):  # its get_config may be that of another file, imported
        config = getattr(made_by(module, path, "get_study", None), "config", None)
        if not isinstance(config, Config):
            raise ValueError(f"{path}: get_study() made no study; end it with `return Study(config=..., ...)`")
    else:
        config = made_by(module, path, "get_config", Config)
    try:
        check_types(config)
        refuse_keys(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config


def find_config(name: str, folder: Path) -> Path:
    """The file of that path, or of that name in the folder.

    Raises:
      ValueError: there is none; names the nearest.
    """
    candidates = [path_of(name), folder / name, folder / f"{name}.py"]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        files = (p.relative_to(folder).as_posix() for p in folder.rglob("*.py") if p.stem != "__init__")
        known = sorted(files, key=lambda file: ("/" in file, file))
        near = difflib.get_close_matches(name, known, 1, 0.4)
        raise ValueError(
            f"config {name!r} does not exist; {f'did you mean {near[0]}? ' if near else ''}known: {', '.join(known)}"
        )
    return path


def made_by(module: ModuleType, path: Path, function: str, kind: type | None) -> Any:
    """What a function of a config file makes.

    Raises:
      ValueError: there is no such function, it fails, or makes something else.
    """
    make = getattr(module, function, None)
    wanted = kind.__name__ if kind else "object"
    if not callable(make):
        raise ValueError(f"{path} has no {function}(); define `def {function}() -> {wanted}`")
    try:
        made = make()
    except Exception as error:
        raise ValueError(mistake(error, path.absolute())) from error
    if kind and not isinstance(made, kind):
        raise ValueError(
            f"{path}: {function}() returned {type(made).__name__ if made is not None else 'nothing'}; "
            f"end it with `return {wanted}(...)`"
        )
    return made


def recorded_config(path: Path) -> Config:
    """The config that a run has recorded, or a study has written for its runs.

    Raises:
      ValueError: the file holds something else, or fields that this version does not know.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        values, beside = fields(record["config"]), record.get("beside")
        if not (values and isinstance(values.get("model.source"), str)):
            raise TypeError("no config")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not that of a run; name a config file, or the config.json of a run") from error
    if beside and beside not in sys.path:
        sys.path.append(beside)  # where the run's own rewards were sought
    try:
        return overridden(Config(), values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def overridden(config: Config, values: Mapping[str, Any]) -> Config:
    """A config with other values in some fields, which are named `section.field`.

    Raises:
      ValueError: there is no such field (names the nearest), or the value is of another type.

    >>> overridden(Config(), {"algorithm.beta": 0.1, "seed": 3}).algorithm.beta
    0.1
    """
    parts = {name: {} for name in ("", *(field.name for field in dataclasses.fields(config)))}
    known = fields(to_dict(config))
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 1, 0.4)
            raise ValueError(f"there is no field {name!r}; {f'did you mean {near[0]!r}?' if near else 'see --help'}")
        section, _, field = name.rpartition(".")
        parts[section][field] = tuple(value) if isinstance(value, list) else value
    changed = {
        name: dataclasses.replace(getattr(config, name), **part) for name, part in parts.items() if name and part
    }
    made = dataclasses.replace(config, **changed, **parts[""])
    check_types(made)
    return made


def mistake(error: Exception, path: Path) -> str:
    """What is wrong in a file that raised, in one line: where, and what.

    >>> mistake(KeyError("x"), Path("mine.py"))
    "mine.py: KeyError: 'x'"
    """
    if isinstance(error, SyntaxError):
        line = (error.text or "").strip()
        return f"{error.filename or path}, line {error.lineno}: {error.msg}{f': {line}' if line else ''}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else f"{path}"
    unknown = re.search(r"got an unexpected keyword argument '(\w+)'", str(error))
    if unknown and isinstance(error, TypeError) and lines and names_key(unknown[1]):
        return f"{where}: {unknown[1]} looks like a key, and there is no such field; {FIX}"
    if unknown and isinstance(error, TypeError) and lines:
        near = difflib.get_close_matches(unknown[1], _known(str(error)), 1)
        return f"{where}: there is no field {unknown[1]!r}; {f'did you mean {near[0]!r}?' if near else 'see --help'}"
    return f"{where}: {type(error).__name__}: {error}"


def _known(message: str) -> list[str]:
    """The fields of the section that Python names in its message, or of all sections."""
    named = getattr(sections, message.partition(".")[0], None)
    classes = [named] if named else [value for value in vars(sections).values() if dataclasses.is_dataclass(value)]
    return [field.name for one in classes for field in dataclasses.fields(one)]


def _is_free(path: Path) -> bool:
    """Whether importing the file's bare name would find this file, so that it may be known under that name."""
    if not path.stem.isidentifier():
        return False
    known = sys.modules.get(path.stem)
    if known is not None:
        return getattr(known, "__file__", None) == str(path)
    spec = importlib.util.find_spec(path.stem)
    return spec is not None and spec.origin == str(path)
