"""Whether two expressions have the same value, wherever both have one."""

from fractions import Fraction
from typing import Any

from igrpo_jax.rewards.equality.arithmetic import Undefined, exact, rounded
from igrpo_jax.rewards.equality.evaluate import Evaluation
from igrpo_jax.rewards.equality.grids import Grid
from igrpo_jax.rewards.reading.nodes import Node, ReadError

_POINTS = 5
_ROUGH = 40


def identical(a: Node, b: Node) -> bool:
    """Whether two expressions are equal: at five points, in some of which variables are negative.

    Fractions are compared exactly. What is irrational is worked out to as many digits as it takes: 50, and twice as
    many as the numbers that it is made of have, so nothing that is written down is too small to count. A number with
    decimals may have been rounded at the sixth place.

    Raises:
      ReadError: if one has no value or is too large.
    """
    if a == b:
        return has_value(a)
    defined = 0
    points = _POINTS if has_variables(a) or has_variables(b) else 1
    for point in range(points):
        try:
            if not _same_at(point, a, b):
                return False
            defined += 1
        except Undefined:
            if points == 1:
                raise
    if not defined:
        raise Undefined("no value at any point")
    return True


def has_value(node: Node) -> bool:
    """True unless the expression is known to have no value; it may be too large to know, or no number.

    Raises:
      Undefined: if it has none.
    """
    try:
        Evaluation(0, _ROUGH).value(node)
    except Undefined:
        raise
    except ReadError:
        pass
    return True


def names(node: Node) -> set[str]:
    """The variables of an expression, and its functions of which nothing is known; not the indices of series."""
    if node.kind in ("name", "text"):
        return {node.value}
    if node.kind == "series":
        index, first, last, term = node.args
        return names(first) | names(last) | (names(term) - {index.value})
    own = {node.value} if node.kind == "call" and "function" in node.value else set()
    return own.union(*map(names, node.args))


def has_variables(node: Node) -> bool:
    """Whether an expression has other values at other points."""
    return bool(names(node))


def number_value(node: Node) -> Any:
    """The real number that an expression without variables is, None if it is none."""
    if has_variables(node):
        return None
    evaluation = Evaluation(0, 60)
    value = evaluation.value(node)
    if isinstance(value, Grid):
        return None
    if not exact(value) and isinstance(value, evaluation.mp.mpc):
        return None
    return value


def _same_at(point: int, a: Node, b: Node) -> bool:
    rough = Evaluation(point, _ROUGH)
    left, right = rough.value(a), rough.value(b)
    if not isinstance(left, Grid) and not isinstance(right, Grid) and exact(left) and exact(right):
        return close(left, right, rough)
    fine = Evaluation(point, rough.enough_digits())
    left, right = fine.value(a), fine.value(b)
    if isinstance(left, Grid) or isinstance(right, Grid):
        if not (isinstance(left, Grid) and isinstance(right, Grid)):
            return False
        if (left.rows, left.columns) != (right.rows, right.columns):
            return False
        return all(close(x, y, fine) for x, y in zip(left.entries, right.entries, strict=True))
    return close(left, right, fine)


def close(a: Any, b: Any, evaluation: Evaluation) -> bool:
    """Whether two numbers of an evaluation are one."""
    if exact(a) and exact(b):
        difference = abs(a - b)
        scale: Any = abs(b)
        if not difference:
            return True
        return evaluation.decimal and difference <= Fraction(1, 2_000_000) and difference <= scale / 100_000
    mp = evaluation.mp
    a, b = rounded(a, mp), rounded(b, mp)
    if mp.isinf(a) or mp.isinf(b):
        return a == b
    difference = abs(a - b)
    if difference <= mp.mpf(10) ** -(40 + int(evaluation.height)):
        return True
    return evaluation.decimal and difference <= mp.mpf(5) / 10**7 and difference <= abs(b) / 100_000
