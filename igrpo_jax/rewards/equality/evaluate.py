"""The value of a tree, exact where it can be, at a point where every variable has a number of its own."""

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from igrpo_jax.rewards.equality import arithmetic
from igrpo_jax.rewards.equality.arithmetic import Undefined, exact, rounded
from igrpo_jax.rewards.equality.functions import FUNCTIONS, MATRIX_FUNCTIONS
from igrpo_jax.rewards.equality.grids import Grid
from igrpo_jax.rewards.reading.nodes import Node, ReadError, TooLarge

_MAX_WORK = 4000.0
"""Work of one evaluation: about 5 microseconds a unit."""
_MAX_TERMS = 1000


class Evaluation:
    """Values of trees at one point.

    Args:
      point: variables have other values at every point; at 0 and 1 all are positive, at others some are negative.
      digits: digits of what is not exact.

    Attributes:
      height: digits of all numbers met on the way, so that what is smaller or larger than others by many digits is
        known to need as many more.
      decimal: whether a number with decimals was met.
    """

    def __init__(self, point: int, digits: int):
        self.point, self.digits, self.mp = point, digits, arithmetic.context(digits)
        self.height, self.decimal, self._work = 0.0, False, 0.0
        self._bound: dict[str, Fraction] = {}
        self._drawn: dict[str, Any] = {}
        self._slow = 5 + (digits / 100) ** 2

    def value(self, node: Node) -> Any:
        """A `Fraction`, a number of the context, or a `Grid` of these.

        Raises:
          ReadError: for what has no value (`Undefined`, sets, relations) or is too large (`TooLarge`).
        """
        self.spend(1 + self.digits / 1000)
        match node.kind:
            case "number" | "decimal":
                self.decimal |= node.kind == "decimal"
                return self._met(node.value)
            case "constant":
                return self._constant(node.value)
            case "name" | "text":
                return self._bound[node.value] if node.value in self._bound else self.variable(f"{node.value}")
            case "numeral":
                return Fraction(int(*node.value))
            case "sum":
                return self.total([self.value(child) for child in node.args])
            case "product":
                return self._product(node)
            case "power":
                return self._power(self.value(node.args[0]), self.value(node.args[1]))
            case "matrix":
                entries = [self._number(child) for child in node.args]
                return Grid(entries, *node.value)
            case "group" if node.value in ("()", "<>"):
                return Grid([self._number(child) for child in node.args], len(node.args), 1)
            case "series":
                return self._series(*node.args, name=node.value)
            case "call":
                return self._call(node)
        raise ReadError(f"a {node.kind} has no value")

    def variable(self, name: str) -> Any:
        """The number that stands for a name, which no expression that is written down would hit by chance."""
        if name not in self._drawn:
            draw = random.Random(f"{name} {self.point}")
            size = self.mp.mpf(2**199 + draw.getrandbits(201)) / 2**200
            self._drawn[name] = -size if self.point > 1 and draw.random() < 0.6 else size
        return self._drawn[name]

    def bind(self, name: str, value: Any) -> None:
        """Gives a variable a number, exact or of the context."""
        self._bound[name] = Fraction(value) if isinstance(value, int) else value

    def enough_digits(self) -> int:
        """Digits that show every difference between what was evaluated here.

        Raises:
          TooLarge: if these are more than any answer needs.
        """
        digits = 50 + 2 * int(self.height)
        if digits > arithmetic.MAX_DIGITS:
            raise TooLarge("more digits than an answer needs")
        return digits

    def spend(self, work: float | int) -> None:
        """Counts work.

        Raises:
          TooLarge: when it is more than any answer needs.
        """
        self._work += work
        if self._work > _MAX_WORK:
            raise TooLarge("more work than an answer needs")

    def _met(self, value: Any) -> Any:
        if isinstance(value, Grid):
            return value
        size = arithmetic.magnitude(value, self.mp)
        self.height += size
        if size > 4 * arithmetic.MAX_DIGITS:
            raise TooLarge("a number with too many digits")
        return value

    def _handled(self, a: Fraction, b: Fraction) -> None:
        """Counts the work of exact arithmetic with two fractions."""
        size = (
            a.numerator.bit_length()
            + a.denominator.bit_length()
            + b.numerator.bit_length()
            + b.denominator.bit_length()
        )
        self.spend(0.5 + (size / 1000) ** 1.6)
        if size > 8 * arithmetic.MAX_DIGITS:
            raise TooLarge("a number with too many digits")

    def _number(self, node: Node) -> Any:
        value = self.value(node)
        if isinstance(value, Grid):
            raise ReadError("a matrix inside a matrix")
        return value

    def _constant(self, name: str) -> Any:
        match name:
            case "pi":
                return +self.mp.pi
            case "e":
                return +self.mp.e
            case "i":
                return self.mp.mpc(0, 1)
        return self.mp.inf

    def total(self, values: list[Any]) -> Any:
        """The sum of numbers or of matrices."""
        total = values[0]
        for value in values[1:]:
            if isinstance(total, Grid) or isinstance(value, Grid):
                if not (isinstance(total, Grid) and isinstance(value, Grid)):
                    raise ReadError("a number added to a matrix")
                total = total.plus(value, self.add)
            else:
                total = self.add(total, value)
        return total

    def add(self, a: Any, b: Any) -> Any:
        """The sum of two numbers."""
        if exact(a) and exact(b):
            return self._handled(a, b) or a + b
        return self._defined(rounded(a, self.mp) + rounded(b, self.mp))

    def multiply(self, a: Any, b: Any) -> Any:
        """The product of two numbers."""
        if exact(a) and exact(b):
            return self._handled(a, b) or a * b
        return self._defined(rounded(a, self.mp) * rounded(b, self.mp))

    def _product(self, node: Node) -> Any:
        total = self.value(node.args[0])
        for child in node.args[1:]:
            value = self.value(child)
            if isinstance(total, Grid):
                if isinstance(value, Grid):
                    self.spend(len(total.entries) * value.columns)
                    total = total.times(value, self.multiply, self.add)
                else:
                    total = total.each(lambda entry, by=value: self.multiply(entry, by))
            elif isinstance(value, Grid):
                total = value.each(lambda entry, by=total: self.multiply(by, entry))
            else:
                total = self.multiply(total, value)
        return total

    def _power(self, base: Any, exponent: Any) -> Any:
        if isinstance(exponent, Grid):
            raise ReadError("a matrix as an exponent")
        if not isinstance(base, Grid):
            whole = exact(base) and exact(exponent) and exponent.denominator == 1
            self.spend(1 if whole else self._slow)
            return self._met(self._defined(arithmetic.power(base, exponent, self.mp)))
        if not exact(exponent) or exponent.denominator > 1 or not 1 <= exponent <= 20:
            raise ReadError("a power of a matrix")
        total = base
        for _ in range(exponent.numerator - 1):
            self.spend(len(base.entries) * base.columns)
            total = total.times(base, self.multiply, self.add)
        return total

    def _defined(self, value: Any) -> Any:
        if not exact(value) and self.mp.isnan(value):
            raise Undefined("no value")
        return value

    def _series(self, variable: Node, first: Node, last: Node, term: Node, *, name: str) -> Any:
        start, stop = self._number(first), self._number(last)
        outer = self._bound.get(variable.value)
        try:
            return self._summed(variable.value, start, stop, term, name)
        finally:  # a series inside may have the same index
            if outer is None:
                self._bound.pop(variable.value, None)
            else:
                self._bound[variable.value] = outer

    def _summed(self, index: str, start: Any, stop: Any, term: Node, name: str) -> Any:
        if not all(exact(value) and value.denominator == 1 for value in (start, stop)):
            # Equal where bounds and terms are.
            self._bound[index] = Fraction(random.Random(f"{name} {self.point}").randrange(10**6), 10**6)
            return self.opaque(name, [start, stop, self._number(term)])
        if stop - start > _MAX_TERMS:
            raise TooLarge("a series with too many terms")
        total: Any = Fraction(0 if name == "sum" else 1)
        for value in range(start.numerator, stop.numerator + 1):
            self._bound[index] = Fraction(value)
            each = self._number(term)
            total = self.add(total, each) if name == "sum" else self._met(self.multiply(total, each))
        return total

    def opaque(self, name: str, arguments: list[Any]) -> Any:
        """A number that stands for a function of which nothing is known but its arguments."""
        shown = []
        for argument in arguments:
            entries = argument.entries if isinstance(argument, Grid) else [argument]
            shown += [self.mp.nstr(self.mp.mpc(rounded(entry, self.mp)), 25) for entry in entries]
        return self.variable(f"{name} {' '.join(shown)}")

    def _call(self, node: Node) -> Any:
        arguments = [self.value(child) for child in node.args]
        self.spend(self._slow)
        if any(isinstance(argument, Grid) for argument in arguments):
            known: Callable[..., Any] | None = MATRIX_FUNCTIONS.get(node.value)
            if known is None and not node.value.startswith("function "):
                raise ReadError(f"{node.value} of a matrix")
            if known is not None:
                return self._met(known(self, *arguments))
        known = FUNCTIONS.get(node.value)
        if known is None:
            return self.opaque(node.value, arguments)
        try:
            return self._met(self._defined(known(self.mp, *arguments)))
        except ReadError:
            raise
        except (ArithmeticError, ValueError, TypeError) as error:
            raise Undefined(f"{node.value} without a value") from error
