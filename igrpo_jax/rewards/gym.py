"""reasoning-gym's own scorers, as a job for grader processes."""

import functools
import json
from typing import Any

from igrpo_jax.rewards.verdict import Verdict

EVALUATING_TASKS = frozenset(
    {
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Tasks whose scorer hands the answer to `eval` or sympy's `parse_expr` (reasoning-gym 0.1.25); they are refused.

`tests/rewards/test_gym.py` runs every other scorer with a recording `eval`.
"""

# These scorers compare boards as tuples, which JSON and Parquet turn into lists.
_BOARD_TASKS = frozenset({"arc_agi", "rearc"})


def check_task(task: str) -> None:
    """Refuses tasks that cannot be scored safely.

    Raises:
      ValueError: for a task whose scorer evaluates the answer, and for `composite`, which hides its members' names.
    """
    if task in EVALUATING_TASKS:
        raise ValueError(
            f"reasoning-gym scores {task!r} by evaluating the answer; leave it out, or use the reward `accuracy`"
        )
    if task == "composite":
        raise ValueError(
            "reasoning-gym's 'composite' has no scorer of its own; name its member tasks as sources instead"
        )


def score_entry(task: str, entry: Any, answer: str) -> Verdict:
    """Scores one answer to one reasoning-gym entry (a dictionary or its JSON); for a grader process."""
    entry = json.loads(entry) if isinstance(entry, str) else entry
    if task in _BOARD_TASKS:
        entry = {**entry, "metadata": _tuples(entry["metadata"])}
    score = float(_dataset(task).score_answer(answer, entry))
    return Verdict(score, "ok" if score >= 1 else "partial" if score > 0 else "unequal", answer)


def warm_up() -> None:
    """Imports reasoning-gym, and switches off sympy's string parser, which no accepted scorer needs."""
    import reasoning_gym  # noqa: F401

    forbid_eval()


def forbid_eval() -> None:
    """Switches sympy's string parser, which is an `eval`, off for the rest of this process."""
    from sympy.parsing import sympy_parser

    sympy_parser.eval_expr = _refuse


def _refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a grader process does not evaluate text")


@functools.cache
def _dataset(task: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(task, size=1, seed=0)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
