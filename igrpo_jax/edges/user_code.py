"""Files of the user's own, paths and Python: config files and reward functions, with mistakes told in one line."""

import dataclasses
import difflib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from igrpo_jax import config as sections
from igrpo_jax.config import Config
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
    """Runs `get_config()` of a config file.

    Args:
      name: path of the file, or its name in the folder, with or without `.py`.
      folder: where a bare name is sought.

    Raises:
      ValueError: no such file (names the nearest), or what it does wrong, with file and line.
    """
    candidates = [path_of(name), folder / name, folder / f"{name}.py"]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        known = sorted(p.name for p in folder.glob("*.py") if p.stem != "__init__")
        near = difflib.get_close_matches(name, known, 1, 0.4)
        raise ValueError(
            f"config {name!r} does not exist; {f'did you mean {near[0]}? ' if near else ''}known: {', '.join(known)}"
        )
    get_config = getattr(run_file(path), "get_config", None)
    if not callable(get_config):
        raise ValueError(f"{path} has no get_config(); define `def get_config() -> Config`")
    try:
        config = get_config()
    except Exception as error:
        raise ValueError(mistake(error, path.absolute())) from error
    if not isinstance(config, Config):
        raise ValueError(
            f"{path}: get_config() returned {type(config).__name__ if config is not None else 'nothing'}; "
            "end it with `return Config(...)`"
        )
    try:
        check_types(config)
        refuse_keys(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config


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
