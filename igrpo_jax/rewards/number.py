"""Exact numbers in plain and LaTeX spelling, and when two of them are the same."""

import re
from fractions import Fraction
from typing import NamedTuple

_MAX_EXPONENT = 1000
_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?:"
    rf"(?P<whole>[0-9]+)?\s*\\frac\s*(?:\{{\s*(?P<top>-?{_DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>{_DECIMAL})\s*\}}"
    r"|(?P<top1>[0-9])\s*(?P<bottom1>[0-9]))"
    rf"|(?:(?P<whole2>[0-9]+) )?(?P<top2>{_INTEGER})\s*/\s*(?P<bottom2>{_INTEGER})"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[-+]?[0-9]+))?"
    r")\s*(?P<percent>%?)"
)


class Number(NamedTuple):
    """An exact number as it was written.

    Attributes:
      value: the number before the percent sign.
      percent: whether a percent sign follows.
      decimal: whether it has decimals, so that it may be a rounded number.
    """

    value: Fraction
    percent: bool
    decimal: bool


def read_number(text: str) -> Number | None:
    r"""Reads an integer, decimal, fraction, mixed number or power of ten; None for anything else.

    Exponents beyond 1000 are refused, so no text makes a number too large to handle.

    >>> read_number(r"-1\frac{1}{2}").value
    Fraction(-3, 2)
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    part = {name: value.replace(",", "") for name, value in match.groupdict().items() if value}
    exponent = part.get("exponent", "0")
    if len(exponent) > 5 or abs(int(exponent)) > _MAX_EXPONENT:
        return None
    top = part.get("top") or part.get("top1") or part.get("top2")
    if top is None:
        value = Fraction(part["decimal"]) * Fraction(10) ** int(exponent)
    else:
        bottom = Fraction(part.get("bottom") or part.get("bottom1") or part["bottom2"])
        if bottom == 0:
            return None
        whole = part.get("whole") or part.get("whole2")
        if whole and top.startswith("-"):
            return None
        value = Fraction(whole or 0) + Fraction(top) / bottom
    value = -value if match["sign"] == "-" else value
    return Number(value, bool(match["percent"]), "." in text or "exponent" in part)


def same_number(answer: Number, gold: Number) -> bool:
    """Whether two numbers are equal, decimals up to the sixth place.

    A gold percentage may be answered with or without the sign or as its value; a percent sign that the gold answer does
    not have is read as a hundredth, or ignored between integers, as `math-verify` does.
    """
    decimal = answer.decimal or gold.decimal
    if answer.percent == gold.percent:
        return _close(answer.value, gold.value, decimal)
    if gold.percent:
        return _close(answer.value, gold.value, decimal) or _close(answer.value, gold.value / 100, decimal)
    if answer.value.denominator == gold.value.denominator == 1 and answer.value == gold.value:
        return True
    return _close(answer.value / 100, gold.value, True)


def _close(a: Fraction, b: Fraction, decimal: bool) -> bool:
    # The relative bound keeps 1e-7 and 2e-7 apart, which agree to six places.
    return a == b or (decimal and abs(a - b) <= Fraction(1, 2_000_000) and abs(a - b) <= abs(b) / 100_000)
