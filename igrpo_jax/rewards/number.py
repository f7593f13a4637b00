"""Exact numbers in plain and LaTeX spelling, and when two of them are the same."""

import re
from fractions import Fraction
from typing import NamedTuple

_MAX_EXPONENT = 1000
_INTEGER = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*(?:"
    rf"(?P<whole>[0-9]+)?\s*\\frac\s*(?:\{{\s*(?P<top>-?{_DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>-?{_DECIMAL})\s*\}}"
    r"|(?P<top1>[0-9])\s*(?P<bottom1>[0-9]))"
    rf"|(?:(?P<whole2>[0-9]+) )?(?P<top2>{_DECIMAL})\s*/\s*(?P<bottom2>{_DECIMAL})"
    rf"|(?P<head>[0-9]*\.[0-9]*)\\(?:overline|bar|dot)\s*\{{?(?P<repeated>[0-9]+)\}}?"
    r"|(?P<comma>0,[0-9]+)"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<exponent>[-+]?[0-9]+))?"
    r")\s*(?P<percent>%?)"
)
_NUMERAL = re.compile(
    r"(?P<digits>[0-9A-Fa-f]+)(?:_(?:(?P<short>[0-9])|\{(?:\\text\{)?(?P<long>[0-9]{1,2}|[a-z]+)\}?\}))?"
)
_BASES = dict(
    zip("two three four five six seven eight nine ten eleven twelve".split(), map(str, range(2, 13)), strict=True),
    sixteen="16",
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

    Groups of thousands may have commas; `0,5` is half. Exponents beyond 1000 are refused, so no text makes a number too
    large to handle.

    >>> read_number(r"-1\frac{1}{2}").value
    Fraction(-3, 2)
    >>> read_number(r"0.1\overline{6}").value
    Fraction(1, 6)
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    part = {name: value.replace(",", "") for name, value in match.groupdict().items() if value}
    exponent = part.get("exponent", "0")
    if len(exponent) > 5 or abs(int(exponent)) > _MAX_EXPONENT:
        return None
    value = _value(part, match["comma"], int(exponent))
    if value is None:
        return None
    value = -value if match["sign"] == "-" else value
    decimal = "." in text or "exponent" in part or "comma" in part
    return Number(value, bool(match["percent"]), decimal and "repeated" not in part)


class Numeral(NamedTuple):
    """Digits as they were written, and the base that stands behind them, None if there is none."""

    digits: str
    base: int | None


def read_numeral(text: str) -> Numeral | None:
    r"""Reads digits with or without a base: `204_5`, `2a_{16}`, `101_{\text{two}}`; None for anything else.

    A subscript that cannot be the digits' base is none, and one letter with a subscript is a name.
    """
    match = _NUMERAL.fullmatch(text)
    if match is None:
        return None
    digits, base = match["digits"], match["short"] or match["long"]
    if base is None:
        return Numeral(digits, None)
    base = _BASES.get(base, base)
    is_name = digits.isalpha() and len(digits) == 1
    if is_name or not base.isdecimal() or in_base(digits, int(base)) is None:
        return None
    return Numeral(digits, int(base))


def in_base(digits: str, base: int) -> int | None:
    """The number that digits are in a base from 2 to 36, None if they are none."""
    try:
        return int(digits, base) if 2 <= base <= 36 else None
    except ValueError:
        return None


def _value(part: dict[str, str], comma: str | None, exponent: int) -> Fraction | None:
    if "repeated" in part:
        head, repeated = part["head"], part["repeated"]
        places = len(head.partition(".")[2])
        return Fraction(head.rstrip(".") or 0) + Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**places)
    if comma:
        return Fraction(comma.replace(",", "."))
    top = part.get("top") or part.get("top1") or part.get("top2")
    if top is None:
        return Fraction(part["decimal"].rstrip(".")) * Fraction(10) ** exponent
    bottom = Fraction((part.get("bottom") or part.get("bottom1") or part["bottom2"]).rstrip("."))
    whole = part.get("whole") or part.get("whole2")
    if not bottom or (whole and (top.startswith("-") or bottom < 0)):
        return None
    return Fraction(whole or 0) + Fraction(top.rstrip(".")) / bottom


def same_number(answer: Number, gold: Number) -> bool:
    """Whether two numbers are equal, decimals up to the sixth place.

    A percent sign is a hundredth. Only between whole numbers it may be left out: `50` answers "how many percent" as
    well as `50%` does, but `12.5` is not `12.5%`.
    """
    decimal = answer.decimal or gold.decimal
    if answer.percent == gold.percent:
        return _close(answer.value, gold.value, decimal)
    if answer.value.denominator == gold.value.denominator == 1 and answer.value == gold.value:
        return True
    if gold.percent:
        return _close(answer.value, gold.value / 100, decimal)
    return _close(answer.value / 100, gold.value, True)


def _close(a: Fraction, b: Fraction, decimal: bool) -> bool:
    # The relative bound keeps 1e-7 and 2e-7 apart, which agree to six places.
    return a == b or (decimal and abs(a - b) <= Fraction(1, 2_000_000) and abs(a - b) <= abs(b) / 100_000)
