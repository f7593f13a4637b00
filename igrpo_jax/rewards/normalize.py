r"""Brings an answer into one spelling: no math delimiters, no layout commands, the unit apart from the value."""

import re
from typing import NamedTuple

from igrpo_jax.rewards.extract import last_box

MAX_LENGTH = 1000
"""Characters of the longest answer that is read; what is longer is no answer."""

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_LAYOUT = re.compile(r"\\(?:left|right|bigl|bigr|big|Big|displaystyle|textstyle|limits)(?![A-Za-z])\s*|\\!")
_SPACE = re.compile(r"\\[ ;:]|~|\\q?quad(?![A-Za-z])")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}")
_UNIT = re.compile(
    r"(?P<body>.*[0-9)}])\s*(?:\^\s*(?P<degree>\\circ|\{\s*\\circ\s*\})"
    r"|(?P<command>\\(?:text|textrm|textnormal|mathrm|mbox))\s*\{(?P<text>[A-Za-z ./]+)\}"
    r"|(?P<word>(?:square |sq )?[A-Za-z]+))(?:\^\s*\{?\s*(?P<power>[23])\s*\}?)?",
    re.DOTALL,
)
_UNICODE = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00d7": r"\times ",
        "\u00f7": "/",
        "\u00b7": r"\cdot ",
        "\u03c0": r"\pi ",
        "\u221e": r"\infty ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u2260": r"\ne ",
        "\u222a": r"\cup ",
        "\u2229": r"\cap ",
        "\u00b1": r"\pm ",
        "\u00b0": r"^\circ",
        "\u00b2": "^2",
        "\u00b3": "^3",
        "\u2019": "'",
        "\u00a0": " ",
    }
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
    )
    for spelling in spellings.split()
}
# Words that change a number's value or join two numbers, so they are no unit even inside \text{}.
_VALUE_WORDS = """
hundred thousand million billion trillion dozen half halves third thirds quarter quarters fourth fourths fifth fifths
tenth tenths hundredth hundredths thousandth thousandths percent percentage pct pi and or to mod times plus minus over
base if is not choose i e x y z
"""
_CURRENCIES = ((r"\$", "dollar"), ("$", "dollar"), ("\u20ac", "euro"))


class Quantity(NamedTuple):
    """An answer in two parts.

    Attributes:
      body: the LaTeX of the value.
      unit: canonical name of the unit, empty if none.
    """

    body: str
    unit: str


def gold_text(gold: str) -> str:
    r"""The answer inside a gold column: what follows the last `####`, the content of a `\boxed{}`, else the text."""
    text = gold.rpartition("####")[2]
    box = last_box(text)
    return text.strip() if box is None else box[1]


def clean(text: str) -> str:
    r"""Strips delimiters and layout: `$\left(\dfrac{1}{2}\right)$.` becomes `(\frac{1}{2})`."""
    text = text.translate(_UNICODE)
    text = _LAYOUT.sub("", text)
    text = _SPACE.sub(" ", text).replace(r"\,", "").replace("{,}", ",").replace(r"\varnothing", r"\emptyset")
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text).replace(r"\%", "%")
    text = re.sub(r"\s+", " ", text)
    for _ in range(3):
        text = text.strip().rstrip(".,;:").strip()
        for left, right in _DELIMITERS:
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                text = text[len(left) : -len(right)]
        whole = _TEXT.fullmatch(text.strip())
        text = whole[1] if whole else text
    return text.strip()


def quantity(text: str) -> Quantity:
    """Splits what `clean` returned into value and unit; a word after a number is a unit only if it is known as one."""
    for sign, unit in _CURRENCIES:
        if text.startswith(sign):
            return Quantity(text[len(sign) :].strip(), unit)
    match = _UNIT.fullmatch(text)
    if match is None:
        return Quantity(text, "")
    if match["degree"]:
        return Quantity(match["body"], "degree")
    words = (match["text"] or match["word"] or "").strip().lower().rstrip(".")
    power = match["power"] or ("2" if words.startswith(("square ", "sq ")) else "")
    words = words.removeprefix("square ").removeprefix("sq ")
    known = words in _UNITS and len(words) > 1
    # One letter after a number is a product (3m); so is an unknown word, unless it is marked as text.
    if not known and (not match["command"] or not words or set(words.split()) & set(_VALUE_WORDS.split())):
        return Quantity(text, "")
    return Quantity(match["body"].strip(), _UNITS.get(words, words) + (f"^{power}" if power else ""))


def plain(body: str) -> str:
    r"""The body for comparing letter by letter: `\text{}` unpacked, blanks kept only between two words or digits."""
    text = _TEXT.sub(r"\1", body)
    text = re.sub(r" (?![0-9A-Za-z])|(?<![0-9A-Za-z]) ", "", text)
    option = re.fullmatch(r"\(([A-Za-z])\)", text)
    return option[1] if option else text
