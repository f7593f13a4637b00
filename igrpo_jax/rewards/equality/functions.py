"""What the functions of the grammar are worth."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from igrpo_jax.rewards.equality import arithmetic
from igrpo_jax.rewards.equality.arithmetic import MAX_DIGITS, Undefined, exact, rounded
from igrpo_jax.rewards.equality.grids import Grid, determinant
from igrpo_jax.rewards.reading.nodes import ReadError, TooLarge


def _plain(name: str) -> Callable[..., Any]:
    """mpmath's function of one number; of numbers so large that nobody means them none."""

    def function(mp: Any, value: Any) -> Any:
        number = rounded(value, mp)
        if mp.isinf(number) or abs(number) > 10**6:
            raise TooLarge(f"{name} of a large number")
        return getattr(mp, name)(number)

    return function


def _exponential(mp: Any, value: Any) -> Any:
    number = rounded(value, mp)
    if abs(number) > 2 * MAX_DIGITS:
        raise TooLarge("an exponential with too many digits")
    return mp.exp(number)


def _logarithm(mp: Any, value: Any, base: Any = Fraction(10)) -> Any:
    if not value or not base or base == 1:
        raise Undefined("a logarithm of zero")
    found = mp.log(rounded(value, mp)) / mp.log(rounded(base, mp))
    if exact(value) and exact(base) and value > 0 and base > 0:
        whole = int(mp.nint(found))
        if abs(found - whole) < mp.mpf(10) ** -20 and abs(whole) < 1000 and base**whole == value:
            return Fraction(whole)
    return found


def _natural(mp: Any, value: Any) -> Any:
    if not value:
        raise Undefined("a logarithm of zero")
    return Fraction(0) if value == 1 else mp.log(rounded(value, mp))


def _toward(rounding: Callable[[Any], int], name: str) -> Callable[..., Any]:
    def function(mp: Any, value: Any) -> Any:
        return Fraction(rounding(value)) if exact(value) else getattr(mp, name)(value)

    return function


def _extreme(choose: Callable[..., Any]) -> Callable[..., Any]:
    def function(mp: Any, *values: Any) -> Any:
        return choose(values, key=lambda value: mp.mpf(rounded(value, mp)))

    return function


def _whole(join: Callable[..., int]) -> Callable[..., Any]:
    def function(mp: Any, *values: Any) -> Any:
        if not all(exact(value) and value.denominator == 1 for value in values):
            raise Undefined("a common divisor of what is not whole")
        return Fraction(join(*(value.numerator for value in values)))

    return function


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _plain(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    **{f"arc{name}": _plain(f"a{name}") for name in ("sin", "cos", "tan")},
    "exp": _exponential,
    "log": _logarithm,
    "lg": _logarithm,
    "ln": _natural,
    "abs": lambda mp, value: abs(value),
    "norm": lambda mp, value: abs(value),
    "floor": _toward(math.floor, "floor"),
    "ceil": _toward(math.ceil, "ceil"),
    "max": _extreme(max),
    "min": _extreme(min),
    "gcd": _whole(math.gcd),
    "lcm": _whole(math.lcm),
    "binom": lambda mp, top, bottom: arithmetic.binomial(top, bottom, mp),
    "factorial": lambda mp, value: arithmetic.factorial(value, mp),
    "double factorial": lambda mp, value: arithmetic.double_factorial(value),
    "degrees": lambda mp, value: rounded(value, mp) * mp.pi / 180,
}
"""By name; each takes the context and the arguments. Others stand for themselves."""


def _determinant(evaluation: Any, grid: Grid) -> Any:
    evaluation.spend(grid.rows**4)
    return determinant(grid, evaluation.multiply, evaluation.add)


def _norm(evaluation: Any, grid: Grid) -> Any:
    if min(grid.rows, grid.columns) > 1:
        raise ReadError("a norm of a matrix")
    squares = [evaluation.multiply(entry, entry) for entry in grid.entries]
    return arithmetic.power(evaluation.total(squares), Fraction(1, 2), evaluation.mp)


MATRIX_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "det": _determinant,
    "abs": lambda evaluation, grid: (_norm if grid.columns == 1 else _determinant)(evaluation, grid),
    "norm": _norm,
    "transpose": lambda evaluation, grid: grid.transposed(),
}
"""Functions of matrices; each takes the evaluation and the arguments."""
