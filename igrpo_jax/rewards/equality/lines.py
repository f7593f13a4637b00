"""Expressions that are linear in a variable: where they are zero, and how steep they are."""

from typing import Any

from igrpo_jax.rewards.equality.arithmetic import exact, rounded
from igrpo_jax.rewards.equality.evaluate import Evaluation
from igrpo_jax.rewards.equality.grids import Grid
from igrpo_jax.rewards.reading.nodes import Node, ReadError, negative


def difference(left: Node, right: Node) -> Node:
    """One side minus the other."""
    return Node("sum", (left, negative(right)))


def line(node: Node, name: str, point: int, digits: int) -> tuple[Any, Any] | None:
    """The value of a variable where an expression is zero, and its slope; exact where all is.

    None if it is not linear in the variable, or does not depend on it.

    Raises:
      ReadError: it has no value, or is a matrix.
    """
    at = []
    for value in (1, 2, 3, 7):
        evaluation = Evaluation(point, digits)
        evaluation.bind(name, value)
        at.append(evaluation.value(node))
    if any(isinstance(value, Grid) for value in at):
        raise ReadError("an equation of matrices")
    mp = Evaluation(point, digits).mp
    if not all(map(exact, at)):
        at = [rounded(value, mp) for value in at]
    slope = at[1] - at[0]
    if is_small(slope, mp, digits):
        return None
    if not near(at[2], at[0] + 2 * slope, mp, digits) or not near(at[3], at[0] + 6 * slope, mp, digits):
        return None
    return 1 - at[0] / slope, slope


def near(x: Any, y: Any, mp: Any, digits: int) -> bool:
    """Whether two numbers of a context are one, but for rounding."""
    if exact(x) and exact(y):
        return x == y
    x, y = rounded(x, mp), rounded(y, mp)
    return bool(abs(x - y) <= mp.mpf(10) ** -(digits // 2 + 10) * max(1, abs(x), abs(y)))


def is_small(x: Any, mp: Any, digits: int) -> bool:
    """Whether a number is zero, but for rounding."""
    return not x if exact(x) else bool(abs(x) < mp.mpf(10) ** -(digits // 2))
