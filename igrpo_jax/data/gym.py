"""reasoning-gym's procedural tasks."""

import contextlib
import dataclasses
import json
import os
import random
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np

from igrpo_jax.data.rows import Rows
from igrpo_jax.data.spec import nearest

DEFAULT_SIZE = 1_000_000
_SMALL = {"acre": 10_000, "word_ladder": 20_000}
"""Tasks that make all their entries at once, or cap their number."""

_SEEDS, _SEED_STRIDE = 64, 2**26

# They iterate over sets of strings, or answer in sympy's order of terms (reasoning-gym 0.1.25).
_HASH_SEEDED = frozenset(
    {
        "intermediate_integration",
        "isomorphic_strings",
        "knight_swap",
        "polynomial_multiplication",
        "ransom_note",
        "word_ladder",
    }
)


def gym_options(task: str) -> dict[str, Any]:
    """The parameters of a task with their types.

    Raises:
      ValueError: for an unknown task.
    """
    from reasoning_gym.factory import DATASETS

    known = set(DATASETS) - {"composite"}
    if task not in known:
        raise ValueError(f"unknown reasoning-gym task {task!r}; {nearest(task, known)}")
    config = DATASETS[task][1]
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)} | {"seed": int, "size": int}


def read_gym(task: str, /, *, seed: int = 0, size: int | None = None, **params: Any) -> Rows:
    """Opens a task of reasoning-gym; rows have `question`, `answer`, `gym_task` and `gym_entry`, the entry as JSON.

    Entry i depends on seed, parameters and i alone. reasoning-gym seeds entry i with seed + i, so its neighboring seeds
    share nearly all entries; here seed s starts at s * 2**26 instead, and sources with different seeds (0 to 63) are
    made from different random numbers. A task with few distinct questions repeats them all the same.

    Args:
      task: name of the task.
      seed: which stretch of random numbers.
      size: number of problems, a million unless the task allows fewer.
      **params: fields of the task's configuration, see `gym_options`.

    Raises:
      ValueError: for values that the task refuses, or a task whose entries depend on Python's hash seed while that is
        random.
    """
    from reasoning_gym.factory import DATASETS

    if task in _HASH_SEEDED and os.environ.get("PYTHONHASHSEED", "random") == "random":
        raise ValueError(f"the problems of {task} differ from process to process; set PYTHONHASHSEED=0 to fix them")
    size = _SMALL.get(task, DEFAULT_SIZE) if size is None else size
    if not 0 <= seed < _SEEDS or not 0 < size <= _SEED_STRIDE:
        raise ValueError(f"seed must be 0 to {_SEEDS - 1} and size 1 to {_SEED_STRIDE}")
    make, config = DATASETS[task]
    start = seed * _SEED_STRIDE
    try:
        with _global_seed(start):
            dataset = make(config=config(**params, seed=start, size=size))
    except (AssertionError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split()) or "no reason given"
        raise ValueError(f"{task} refuses these parameters ({reason}); change them") from error

    def read(index: int) -> dict[str, Any]:
        with _global_seed(start + index):
            entry = dataset[index]
        # Most entries are JSON but for their tuples; the few other values serve no scorer.
        text = json.dumps(entry, default=_jsonable)
        return {"question": entry["question"], "answer": entry["answer"], "gym_task": task, "gym_entry": text}

    return Rows(task, size, ("question", "answer", "gym_task", "gym_entry"), read, generated=True)


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seeds the global generators, which a few tasks use besides their own, and puts them back afterwards."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return sorted(value, key=repr) if isinstance(value, set | frozenset) else str(value)
