"""Exact and high-precision arithmetic that looks at the size of a result before it works it out."""

import math
import threading
from fractions import Fraction
from typing import Any

import mpmath

from igrpo_jax.rewards.reading.nodes import ReadError, TooLarge

MAX_DIGITS = 10_000
"""Digits of the largest and the smallest number that is worked out."""

_kept = threading.local()


class Undefined(ReadError):
    """An expression without a value, such as a division by zero."""


def context(digits: int) -> Any:
    """An mpmath context of this thread with so many digits."""
    if not hasattr(_kept, "context"):
        _kept.context = mpmath.mp.clone()
    _kept.context.dps = digits
    return _kept.context


def exact(value: Any) -> bool:
    """Whether it is a fraction rather than a rounded number."""
    return isinstance(value, Fraction)


def rounded(value: Any, mp: Any) -> Any:
    """A number of the context."""
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def magnitude(value: Any, mp: Any) -> float:
    """How many digits a number is away from 1: of a fraction all that it is written with, else its exponent."""
    if isinstance(value, Fraction):
        return 0.302 * (value.numerator.bit_length() + value.denominator.bit_length())
    if not value or not mp.isfinite(value):
        return 0.0
    return 0.302 * abs(int(mp.mag(value)))


def power(base: Any, exponent: Any, mp: Any) -> Any:
    """A power, exact where both are exact and the exponent is whole, or the root is."""
    if exact(exponent) and not exponent.numerator:
        if exact(base) and not base:
            raise Undefined("0 to the power 0")
        return Fraction(1)
    if not mp.isfinite(rounded(base, mp)) or not mp.isfinite(rounded(exponent, mp)):
        raise Undefined("a power of infinity")
    if not base:
        if mp.re(rounded(exponent, mp)) <= 0:
            raise Undefined("division by zero")
        return Fraction(0)
    size = magnitude(base, mp) if exact(base) else 0.302 * abs(int(mp.mag(base))) + 1
    if exact(base) and abs(base) == 1:
        size = 0.0
    if size * abs(mp.mpc(rounded(exponent, mp))) > MAX_DIGITS:
        raise TooLarge("a power with too many digits")
    if exact(exponent) and exponent.denominator == 1:
        if exact(base):
            return base**exponent.numerator
        return rounded(base, mp) ** exponent.numerator
    if exact(exponent) and exponent.denominator % 2 and exponent.denominator <= 64 and _negative(base, mp):
        sign = -1 if exponent.numerator % 2 else 1  # the real root
        return sign * power(-base, exponent, mp)
    if exact(exponent) and exact(base) and base > 0 and exponent.denominator <= 64:
        root = _exact_root(base, exponent.denominator)
        if root is not None:
            return root**exponent.numerator
    return mp.power(rounded(base, mp), rounded(exponent, mp))


def factorial(value: Any, mp: Any) -> Any:
    """n!, of whole numbers exactly, else the gamma function's."""
    if not exact(value) or value.denominator > 1:
        if abs(mp.mpc(rounded(value, mp))) > 1000:
            raise TooLarge("a factorial with too many digits")
        return mp.gamma(rounded(value, mp) + 1)
    count = value.numerator
    if count < 0:
        raise Undefined("the factorial of a negative number")
    if count > 3000:
        raise TooLarge("a factorial with too many digits")
    return Fraction(math.factorial(count))


def double_factorial(value: Any) -> Any:
    """n!!, the product of every second number up to n."""
    if not exact(value) or value.denominator > 1 or value < 0:
        raise Undefined("a double factorial of what is no whole number")
    if value > 3000:
        raise TooLarge("a factorial with too many digits")
    return Fraction(math.prod(range(value.numerator, 0, -2)))


def binomial(top: Any, bottom: Any, mp: Any) -> Any:
    """n over k, of whole numbers exactly."""
    if not (exact(top) and exact(bottom) and top.denominator == bottom.denominator == 1 and top >= 0):
        if max(abs(mp.mpc(rounded(top, mp))), abs(mp.mpc(rounded(bottom, mp)))) > 1000:
            raise TooLarge("a binomial with too many digits")
        return mp.binomial(rounded(top, mp), rounded(bottom, mp))
    n, k = top.numerator, bottom.numerator
    if not 0 <= k <= n:
        return Fraction(0)
    if min(k, n - k) * (n.bit_length() + 1) > 3 * MAX_DIGITS:
        raise TooLarge("a binomial with too many digits")
    return Fraction(math.comb(n, k))


def _negative(value: Any, mp: Any) -> bool:
    return value < 0 if exact(value) else not mp.im(value) and mp.re(value) < 0


def _exact_root(value: Fraction, degree: int) -> Fraction | None:
    parts = []
    for part in (value.numerator, value.denominator):
        found = math.isqrt(part) if degree == 2 else _whole_root(part, degree)
        if found**degree != part:
            return None
        parts.append(found)
    return Fraction(*parts)


def _whole_root(value: int, degree: int) -> int:
    """The largest whole number whose power is at most the value."""
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
    return low
