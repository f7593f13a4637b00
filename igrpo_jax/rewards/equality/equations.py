"""Whether two equations or inequalities say the same."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from igrpo_jax.rewards.equality.arithmetic import Undefined, rounded
from igrpo_jax.rewards.equality.evaluate import Evaluation
from igrpo_jax.rewards.equality.grids import Grid
from igrpo_jax.rewards.equality.identity import names
from igrpo_jax.rewards.equality.lines import difference, is_small, line, near
from igrpo_jax.rewards.reading.nodes import Node, ReadError

_POINTS = 4
_MAX_NAMES = 8
_TERMS = 7
_PLACES = tuple(Fraction(3 * n + 1, 3) for n in range(-5, 5))
"""Where slopes are looked at: more places than a polynomial has terms, none at which one is likely to have no value."""

_UPWARD = {"<": "<", "<=": "<=", ">": "<", ">=": "<="}


def same_equations(a: tuple[Node, ...], b: tuple[Node, ...]) -> bool:
    """Whether two equations of two sides each have the same solutions.

    Either one is the other times a number, or both are linear in a variable and give the same value for it. Others,
    such as an equation and its square, are not looked into and count as different.
    """
    left, right = difference(*a), difference(*b)
    variables = names(left)
    if not variables or variables != names(right) or len(variables) > _MAX_NAMES:
        return False
    if _factor(left, right) is not None:
        return True
    return any(_same_solution(left, right, name) for name in sorted(variables))


def same_inequalities(a: Node, b: Node) -> bool:
    """Whether two inequalities of two sides each are the same up to a positive factor."""
    if len(a.value) != 1 or len(b.value) != 1:
        return False
    sign, other = a.value[0], b.value[0]
    left, right = difference(*a.args), difference(*b.args)
    if not names(left) or names(left) != names(right):
        return False
    factor = _factor(left, right)
    if factor is None or not factor:
        return False
    if sign == other == "!=":
        return True
    if sign not in _UPWARD or other not in _UPWARD or _UPWARD[sign] != _UPWARD[other]:
        return False
    return (factor > 0) == (sign == other)


def _digits(*nodes: Node) -> int:
    rough = Evaluation(0, 40)
    for node in nodes:
        if isinstance(rough.value(node), Grid):
            raise ReadError("an equation of matrices")
    return rough.enough_digits()


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
        if factor is not None and not near(y, factor * x, mp, digits):
            return None
        factor, seen = y / x, seen + 1
    if factor is None or seen < 2 or abs(factor) < mp.mpf(10) ** -(digits // 2):
        return None
    return mp.re(factor) if near(factor, mp.re(factor), mp, digits) else None


def _same_solution(a: Node, b: Node, name: str) -> bool:
    """Whether both are linear in a variable and zero at the same value of it, and nowhere else."""
    digits, seen = _digits(a, b), 0
    for point in range(_POINTS):
        try:
            x, y = (line(node, name, point, digits) for node in (a, b))
        except Undefined:
            continue
        if x is None or y is None or not near(x[0], y[0], Evaluation(point, digits).mp, digits):
            return False
        seen += 1
    others = sorted((names(a) | names(b)) - {name})
    return seen > 1 and all(_no_factor(a, b, name, other, digits) for other in others)


def _no_factor(a: Node, b: Node, name: str, other: str, digits: int) -> bool:
    """Whether neither of two has a factor in another variable, `x - 1` in `(x - 1)(y - 2x)`, that adds solutions.

    Such a factor is one of the slope. Where the slopes differ by a function that is not known to have no zeros, the
    answer is no.
    """
    slopes = [[_slope(node, name, other, value, digits) for value in _PLACES] for node in (a, b)]
    mp = Evaluation(0, digits).mp
    if None in (*slopes[0], *slopes[1]):
        return False
    ratios = [x / y for x, y in zip(*slopes, strict=True)]
    if all(near(ratio, ratios[0], mp, digits) for ratio in ratios):
        return True
    for node, partner, values in ((a, b, slopes[0]), (b, a, slopes[1])):
        zeros = _zeros(values, mp, digits)
        if zeros is None or any(
            _vanishes(node, other, zero, digits) for zero in zeros if not _vanishes(partner, other, zero, digits)
        ):
            return False
    return True


def _slope(node: Node, name: str, other: str, value: Fraction, digits: int) -> Any:
    """How steep a line is where another variable has a value, None where it is none."""
    at = []
    for place in (1, 2):
        evaluation = Evaluation(0, digits)
        evaluation.bind(name, place)
        evaluation.bind(other, value)
        try:
            at.append(rounded(evaluation.value(node), evaluation.mp))
        except Undefined:
            return None
    return None if is_small(at[1] - at[0], evaluation.mp, digits) else at[1] - at[0]


def _zeros(values: Sequence[Any], mp: Any, digits: int) -> list[Any] | None:
    """The zeros of a function with these values at `_PLACES`; None if neither it, its inverse nor its square is a
    polynomial of few terms."""
    if _polynomial([1 / value for value in values], mp, digits) is not None:
        return []
    for function in (values, [value * value for value in values]):
        terms = _polynomial(function, mp, digits)
        if terms is not None:
            try:
                return mp.polyroots(terms, maxsteps=200, extraprec=4 * digits)
            except mp.NoConvergence:
                return None
    return None


def _polynomial(values: Sequence[Any], mp: Any, digits: int) -> list[Any] | None:
    """The coefficients, of the highest power first, of the polynomial with these values at `_PLACES`."""
    places = [mp.mpf(place.numerator) / place.denominator for place in _PLACES]
    powers = mp.matrix([[place**n for n in reversed(range(_TERMS))] for place in places[:_TERMS]])
    terms = list(mp.lu_solve(powers, mp.matrix(values[:_TERMS])))
    if not all(near(mp.polyval(terms, x), y, mp, digits) for x, y in zip(places, values, strict=True)):
        return None
    while len(terms) > 1 and is_small(terms[0], mp, digits):
        del terms[0]
    return terms


def _vanishes(node: Node, name: str, value: Any, digits: int) -> bool:
    evaluation = Evaluation(0, digits)
    evaluation.bind(name, value)
    try:
        found = rounded(evaluation.value(node), evaluation.mp)
    except Undefined:
        return False
    return bool(abs(found) < evaluation.mp.mpf(10) ** -(digits // 4))
