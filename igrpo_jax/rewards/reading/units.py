r"""Splits an answer into value and unit: `5\text{ cm}`, `\$5`, `90^\circ`, `5 million dollars`."""

import re
from typing import NamedTuple

_UNIT = re.compile(
    r"(?P<body>.*?[0-9)}%!.])\s*(?:\^\s*(?P<degree>\\circ|\{\s*\\circ\s*\})\s*[CF]?"
    r"|(?P<word>(?:[A-Za-z][A-Za-z.]*)(?:[ /][A-Za-z][A-Za-z.]*)*))(?:\^\s*\{?\s*(?P<power>[0-9])\s*\}?)?",
    re.DOTALL,
)
_MARKED = re.compile(
    r"(?P<body>.*\S)\s*\\(?:text|textrm|textnormal|textit|textbf|mathrm|mbox|rm)\s*\{(?P<word>[A-Za-z ./^0-9{}()-]+)\}"
    r"(?:\^\s*\{?\s*(?P<power>[0-9])\s*\}?)?",
    re.DOTALL,
)
_UNITS = {
    spelling: spellings.split()[0]
    for spellings in (
        "mm millimeter millimeters millimetre millimetres",
        "cm centimeter centimeters centimetre centimetres",
        "m meter meters metre metres",
        "km kilometer kilometers kilometre kilometres",
        "in inch inches",
        "ft foot feet",
        "yd yard yards",
        "mi mile miles",
        "mg milligram milligrams",
        "g gram grams",
        "kg kilogram kilograms",
        "lb lbs pound pounds",
        "oz ounce ounces",
        "ml milliliter milliliters millilitre millilitres",
        "l liter liters litre litres",
        "gal gallon gallons",
        "s sec secs second seconds",
        "min mins minute minutes",
        "h hr hrs hour hours",
        "day days",
        "week weeks",
        "month months",
        "yr yrs year years",
        "degree degrees deg",
        "radian radians rad",
        "mph",
        "dollar dollars",
        "cent cents",
        "euro euros",
        "unit units",
        "am a.m",
        "pm p.m",
    )
    for spelling in spellings.split()
}
_SCALES = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12,
    "hundredth": -2, "thousandth": -3, "millionth": -6, "billionth": -9, "tenth": -1,
}  # fmt: skip
_COUNTS = {
    "dozen": 12,
    "score": 20,
    "gross": 144,
    "pair": 2,
    "half": 0,
    "quarter": 0,
    "third": 0,
    "fourth": 0,
    "fifth": 0,
}
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3"}
# Words that change a number's value or join two numbers, so they are no unit even inside \text{}.
_VALUE_WORDS = frozenset(
    """
    halves sixth seventh eighth ninth percent percentage pct mill pi and or to mod modulo times plus minus over base
    if is are not choose squared cubed square root double twice triple factorial negative positive less more than about
    approximately between from point divided multiplied by power raised e i x y z n k where when for all with in mixed
    no none zero one two three four five six seven eight nine ten twenty
    """.split()
)  # `in` alone is an inch; see `_unit`
_CURRENCIES = ((r"\$", "dollar"), ("$", "dollar"), ("\u20ac", "euro"), ("\u00a3", "pound sterling"))


class Quantity(NamedTuple):
    """An answer in two parts.

    Attributes:
      body: the LaTeX of the value.
      unit: canonical name of the unit, empty if none.
    """

    body: str
    unit: str


def quantity(text: str) -> Quantity:
    """Splits a cleaned answer into value and unit.

    Words behind a number are a unit, known or not, unless one of them changes the value. A word of scale is part of the
    value. One letter behind a number is a product (`3m`) unless it is marked as text.
    """
    for sign, unit in _CURRENCIES:
        for minus in ("", "-"):
            if text.startswith(minus + sign):
                return Quantity(minus + _scaled(text[len(minus + sign) :].strip()), unit)
    match = _MARKED.fullmatch(text) or _UNIT.fullmatch(text)
    if match is None or match["body"].count("{") != match["body"].count("}"):
        return Quantity(text, "")
    body = match["body"].strip()
    if match.re is _UNIT and match["degree"]:
        return Quantity(body, "degree")
    words = match["word"].strip().lower().replace("{", "").replace("}", "").split()
    factor, words = _take_scale(words)
    if words and not _is_unit(words, marked=match.re is _MARKED):
        return Quantity(text, "")
    return Quantity(_times(body, factor) if factor else body, _unit(words, match["power"] or ""))


def _scaled(text: str) -> str:
    match = re.fullmatch(r"(.*[0-9)}])\s*(?:\\text\s*\{)?\s*([a-z]+)\s*\}?", text)
    factor = _take_scale([match[2]])[0] if match else ""
    return _times(match[1], factor) if match and factor else text


def _take_scale(words: list[str]) -> tuple[str, list[str]]:
    """The factor that leading words of scale stand for, as text, and the other words."""
    scale = 0
    count = 1
    while words:
        word = words[0].removesuffix("s") if words[0] not in ("gross",) else words[0]
        if word in _SCALES:
            scale += _SCALES[word]
        elif _COUNTS.get(word):
            count *= _COUNTS[word]
        else:
            break
        words = words[1:]
    if words[:1] == ["of"]:
        words = words[1:]
    if (scale, count) == (0, 1):
        return "", words
    return f"{count}e{scale}" if count == 1 else str(count * 10**scale) if scale >= 0 else f"{count}e{scale}", words


def _times(body: str, factor: str) -> str:
    return rf"({body}) \times {factor}"


def _is_unit(words: list[str], *, marked: bool) -> bool:
    if len(words) == 1 and words[0].rstrip(".") in _UNITS:
        return marked or len(words[0]) > 1
    plain = [word.strip(".()") for word in words]
    stems = {word.removesuffix("s") for word in plain} | set(plain)
    if stems & set(_COUNTS) or stems & set(_SCALES) or (stems - {"square"}) & _VALUE_WORDS:
        return False
    if plain[-1] in ("square", "squared"):
        return False
    known = [word for word in plain if word in _UNITS or word in _POWERS]
    return marked or bool(known) or (all(len(word) > 2 for word in plain) and max(map(len, plain)) > 3)


def _unit(words: list[str], power: str) -> str:
    if words and words[0] in _POWERS:
        power, words = _POWERS[words[0]], words[1:]
    names = [_UNITS.get(word.rstrip("."), word.rstrip(".")) for word in words]
    return " ".join(names) + (f"^{power}" if power and names else "")
