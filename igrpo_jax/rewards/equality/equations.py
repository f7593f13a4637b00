"""Whether two equations or inequalities say the same."""

from typing import Any

from igrpo_jax.rewards.equality.arithmetic import MAX_DIGITS, Undefined, rounded
from igrpo_jax.rewards.equality.evaluate import Evaluation
from igrpo_jax.rewards.equality.grids import Grid
from igrpo_jax.rewards.reading.nodes import MINUS_ONE, Node, ReadError, TooLarge, walk

_POINTS = 4
_MAX_NAMES = 8
_UPWARD = {"<": "<", "<=": "<=", ">": "<", ">=": "<="}


def same_equations(a: tuple[Node, ...], b: tuple[Node, ...]) -> bool:
    """Whether two equations of two sides each have the same solutions.

    Either one is the other times a number, or both are linear in a variable and give the same value for it. Others,
    such as an equation and its square, are not looked into and count as different.
    """
    left, right = _difference(*a), _difference(*b)
    names = _names(left)
    if not names or names != _names(right) or len(names) > _MAX_NAMES:
        return False
    if _factor(left, right) is not None:
        return True
    return any(_same_solution(left, right, name) for name in sorted(names))


def same_inequalities(a: Node, b: Node) -> bool:
    """Whether two inequalities of two sides each are the same up to a positive factor."""
    if len(a.value) != 1 or len(b.value) != 1:
        return False
    sign, other = a.value[0], b.value[0]
    left, right = _difference(*a.args), _difference(*b.args)
    if not _names(left) or _names(left) != _names(right):
        return False
    factor = _factor(left, right)
    if factor is None or not factor:
        return False
    if sign == other == "!=":
        return True
    if sign not in _UPWARD or other not in _UPWARD or _UPWARD[sign] != _UPWARD[other]:
        return False
    return (factor > 0) == (sign == other)


def _difference(left: Node, right: Node) -> Node:
    return Node("sum", (left, Node("product", (MINUS_ONE, right))))


def _names(node: Node) -> set[str]:
    return {part.value for part in walk(node) if part.kind in ("name", "text")}


def _digits(*nodes: Node) -> int:
    rough = Evaluation(0, 40)
    for node in nodes:
        if isinstance(rough.value(node), Grid):
            raise ReadError("an equation of matrices")
    digits = 50 + 2 * int(rough.height)
    if digits > MAX_DIGITS:
        raise TooLarge("more digits than an answer needs")
    return digits


def _factor(a: Node, b: Node) -> Any:
    """The real number by which the first is to be multiplied to give the second everywhere, None if there is none."""
    digits, factor, seen = _digits(a, b), None, 0
    for point in range(_POINTS):
        evaluation = Evaluation(point, digits)
        mp = evaluation.mp
        try:
            x, y = (rounded(evaluation.value(node), mp) for node in (a, b))
        except Undefined:
            continue
        if abs(x) < mp.mpf(10) ** -(digits // 2) or mp.isinf(x) or mp.isinf(y):
            return None
        if factor is not None and not _near(y, factor * x, mp, digits):
            return None
        factor, seen = y / x, seen + 1
    if factor is None or seen < 2 or abs(factor) < mp.mpf(10) ** -(digits // 2):
        return None
    return mp.re(factor) if _near(factor, mp.re(factor), mp, digits) else None


def _same_solution(a: Node, b: Node, name: str) -> bool:
    digits, found = _digits(a, b), []
    for point in range(_POINTS):
        try:
            x, y = (_solution(node, name, point, digits) for node in (a, b))
        except Undefined:
            continue
        if x is None or y is None:
            return False
        mp = Evaluation(point, digits).mp
        if not _near(x, y, mp, digits):
            return False
        found.append(x)
    # A value that hangs on no other variable comes from a factor: x(y+1) = 0 and x(y+2) = 0 are not the same.
    return any(not _near(x, found[0], Evaluation(0, digits).mp, digits) for x in found[1:])


def _solution(node: Node, name: str, point: int, digits: int) -> Any:
    """The value of a variable in which the node is linear, where the node is zero; None if it is not linear."""
    at = []
    for value in (1, 2, 3, 7):
        evaluation = Evaluation(point, digits)
        evaluation.bind(name, value)
        at.append(rounded(evaluation.value(node), evaluation.mp))
    mp, slope = evaluation.mp, at[1] - at[0]
    if abs(slope) < mp.mpf(10) ** -(digits // 2):
        return None
    if not _near(at[2], at[0] + 2 * slope, mp, digits) or not _near(at[3], at[0] + 6 * slope, mp, digits):
        return None
    return 1 - at[0] / slope


def _near(x: Any, y: Any, mp: Any, digits: int) -> bool:
    return abs(x - y) <= mp.mpf(10) ** -(digits // 2 + 10) * max(1, abs(x), abs(y))
