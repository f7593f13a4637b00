r"""Splits an answer into value and unit: `5\text{ cm}`, `\$5`, `90^\circ`, `5 m/s`, `5 million dollars`."""

import re
from collections import Counter
from typing import NamedTuple

from igrpo_jax.rewards.reading.commands import ANGLE_FUNCTIONS
from igrpo_jax.rewards.reading.words import says_something

_DEGREE = r"\^\s*(?:\\circ|\{\s*\\circ\s*\})"
_WRAPPER = r"\\(?:text|textrm|textnormal|textit|textbf|mathrm|mbox|rm|operatorname)\s*"
_CONTENT = r"(?:[A-Za-z ./0-9()-]|\^\{?-?[0-9]\}?)+"
_POWER = r"(?:\s*\^\s*\{?\s*-?[0-9]\s*\}?)?"
_CHUNK = rf"{_WRAPPER}\{{{_CONTENT}\}}{_POWER}"
_MARKED = re.compile(rf"(?P<body>.*?\S)(?P<phrase>(?:\s*(?:{_CHUNK}|/|\\cdot(?![A-Za-z])))*\s*{_CHUNK})", re.DOTALL)
_WORD = rf"[A-Za-z][A-Za-z.]*{_POWER}"
_PLAIN = re.compile(
    rf"(?P<body>.*?[0-9)}}%!.])\s*(?P<phrase>/?\s?{_WORD}(?:(?: ?/ ?| ){_WORD})*)",
    re.DOTALL,
)
_ANGLE = re.compile(rf"(?P<body>.*?[0-9)}}%!.])\s*{_DEGREE}", re.DOTALL)
_QUOTIENT = re.compile(rf"\\frac\s*\{{\s*({_CHUNK})\s*\}}\s*\{{\s*({_CHUNK})\s*\}}")
_TEMPERATURE = re.compile(rf"{_DEGREE}\s*(?:{_WRAPPER}\{{\s*([CF])\s*\}}|([CF])(?![A-Za-z]))")
_OF_AN_ANGLE = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(sorted(ANGLE_FUNCTIONS))})(?![A-Za-z])")
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
        "dollar dollars",
        "cent cents",
        "euro euros",
        "unit units",
        "am a.m",
        "pm p.m",
        "N newton newtons",
        "J joule joules",
        "W watt watts",
        "V volt volts",
        "K kelvin kelvins",
    )
    for spelling in spellings.split()
}
UNIT_NAMES = "|".join(
    re.escape(word) for word in sorted(_UNITS, key=len, reverse=True) if len(word) > 1 and word != "in"
)
"""Names and abbreviations of known units but `in`, which is mostly no inch, and single letters; part of a pattern."""

_ALIASES = (
    (re.compile(r"(?<![A-Za-z])mph(?![A-Za-z])", re.IGNORECASE), "mi/h"),
    (re.compile(r"(?<![A-Za-z])(?:kph|kmph|kmh)(?![A-Za-z])", re.IGNORECASE), "km/h"),
    (re.compile(r"(?:deg(?:rees?)? +)?(?:celsius|centigrade)|deg(?:rees?)? *C(?![A-Za-z])", re.IGNORECASE), "celsius"),
    (re.compile(r"(?:deg(?:rees?)? +)?fahrenheit|deg(?:rees?)? *F(?![A-Za-z])", re.IGNORECASE), "fahrenheit"),
)
_TEMPERATURES = {"celsius", "fahrenheit"}
_SCALES = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "quadrillion": 15, "quintillion": 18,
    "hundredth": -2, "thousandth": -3, "millionth": -6, "billionth": -9, "tenth": -1,
}  # fmt: skip
_COUNTS = {"dozen": 12, "score": 20, "gross": 144, "pair": 2}
_AHEAD = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_BEHIND = {"squared": 2, "cubed": 3}
_NO_UNITS = {"M", "B"}
"""Letters that stand for a million and a billion as well."""

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
    r"""Splits a cleaned answer into value and unit.

    Words behind a number are a unit, known or not, unless one of them says something about the number. A word of scale
    is part of the value. One letter behind a number is a product (`3m`) unless it is marked as text. The angle of a
    function, as in `\sin 30^\circ`, is part of the value.

    >>> quantity(r"5 \text{ meters per second}")
    Quantity(body='5', unit='m s^-1')
    """
    for sign, unit in _CURRENCIES:
        for minus in ("", "-"):
            if text.startswith(minus + sign):
                body, phrase = _split(text[len(minus + sign) :].strip())
                return Quantity(minus + body, _canonical(f"{unit} {phrase}" if _canonical(phrase) != unit else unit))
    body, phrase = _split(text)
    return Quantity(body, _canonical(phrase))


def same_unit(a: str, b: str) -> bool:
    """Whether two units are one, or one is left out; degrees may be of any scale of temperature."""
    return not a or not b or a == b or (a == "degree" and b in _TEMPERATURES) or (b == "degree" and a in _TEMPERATURES)


def _split(text: str) -> tuple[str, str]:
    """The value, and the words of its unit as they stand there."""
    text = _TEMPERATURE.sub(lambda match: rf"\text{{ degrees {match[1] or match[2]}}}", text)
    angle = _ANGLE.fullmatch(text)
    if angle:
        return (text, "") if _OF_AN_ANGLE.search(text) else (angle["body"].strip(), "degree")
    text = _QUOTIENT.sub(r"\1/\2", text)
    marked = _MARKED.fullmatch(text)
    match = marked or _PLAIN.fullmatch(text)
    if match is None or match["body"].count("{") != match["body"].count("}"):
        return text, ""
    body = match["body"].strip()
    phrase = re.sub(r"\\cdot|[{}]", " ", re.sub(_WRAPPER, " ", match["phrase"]))
    phrase = re.sub(r"\s*\^\s*", "^", phrase).strip()
    factor, phrase = _take_scale(phrase)
    if phrase and not _is_unit(phrase, marked=marked is not None):
        return text, ""
    if _canonical(phrase) == "degree" and _OF_AN_ANGLE.search(body):
        return rf"{body}^\circ", ""
    return rf"({body}) \times {factor}" if factor else body, phrase


def _take_scale(phrase: str) -> tuple[str, str]:
    """The factor that leading words of scale stand for, as text, and the other words."""
    scale, count, words = 0, 1, phrase.split()
    while words:
        word = words[0].lower() if words[0] == "gross" else words[0].lower().removesuffix("s")
        if word in _SCALES:
            scale += _SCALES[word]
        elif word in _COUNTS:
            count *= _COUNTS[word]
        else:
            break
        words = words[1:]
    if (scale, count) == (0, 1):
        return "", phrase
    return f"{count}e{scale}" if count == 1 or scale < 0 else str(count * 10**scale), " ".join(
        words[1:] if words[:1] == ["of"] else words
    )


def _is_unit(phrase: str, *, marked: bool) -> bool:
    words = [word for word in re.split(r"[\s/()]+|\^-?[0-9]", _with_names(phrase)) if word and word != "per"]
    known = [_known(word) is not None for word in words]
    if not words or not all(word[0].isalpha() for word in words) or words[-1].lower() in _AHEAD:
        return False
    for place, word in enumerate(words):
        if word.lower() in _AHEAD or (known[place] and (len(words) == 1 or word.lower() != "in")):
            continue
        if word.lower() in _BEHIND and place and known[place - 1]:
            continue
        if any(says_something(part) for part in word.strip(".").split("-")):
            return False
        if len(word) == 1 and (word.islower() or word in _NO_UNITS):
            return False
    if marked:
        return True
    if min(map(len, words)) == 1:  # letters are variables, unless all is as in `m/s`
        longer = "/" in phrase[1:] or max(map(len, words)) > 1
        return longer and all(
            is_known or word.lower() in (*_AHEAD, *_BEHIND) for word, is_known in zip(words, known, strict=True)
        )
    return any(known) or (all(len(word) > 2 for word in words) and max(map(len, words)) > 3)


def _known(word: str) -> str | None:
    """The canonical name of a unit; single letters are known in their own case."""
    word = word.rstrip(".")
    if word in _UNITS or len(word) == 1:
        return _UNITS.get(word)
    return word if word in _TEMPERATURES else _UNITS.get(word.lower())


def _with_names(phrase: str) -> str:
    for pattern, name in _ALIASES:
        phrase = pattern.sub(name, phrase)
    return phrase


def _canonical(phrase: str) -> str:
    """One name for all spellings of a unit: names in order, each with its power."""
    powers: Counter[str] = Counter()
    for place, part in enumerate(re.split(r"\s*/\s*|(?:^|\s+)per\s+", _with_names(phrase))):
        for name, power in _factors(part.split()):
            powers[name] += -power if place else power
    return " ".join(f"{name}^{power}" if power != 1 else name for name, power in sorted(powers.items()) if power)


def _factors(words: list[str]) -> list[tuple[str, int]]:
    """The units that stand side by side, each with its power; words that are no known units are one."""
    found: list[tuple[str, int]] = []
    ahead, known = 1, True
    for word in words:
        raised = re.fullmatch(r"([^^]+)\^(-?[0-9])", word)
        base, power = (raised[1], int(raised[2])) if raised else (word, 1)
        if base.lower() in _AHEAD:
            ahead = _AHEAD[base.lower()]
        elif base.lower() in _BEHIND and found:
            found[-1] = (found[-1][0], found[-1][1] * _BEHIND[base.lower()])
        else:
            known = known and _known(base) is not None
            found.append((_known(base) or base.rstrip(".").lower(), ahead * power))
            ahead = 1
    return found if known or not found else [(" ".join(name for name, _ in found), found[-1][1])]


def unit_behind(text: str, place: int) -> str:
    r"""What stands behind a number in prose and is known to be its unit or scale; a letter alone is marked as text.

    >>> unit_behind("5 mm wide", 1), unit_behind("5 m wide", 1), unit_behind("5 apples", 1)
    (' mm', ' \\text{m}', '')
    """
    match = _IN_PROSE.match(text, place)
    if match is None:
        return ""
    return rf" \text{{{match['letter']}}}" if match["letter"] else match[0]


def _in_prose() -> re.Pattern[str]:
    name = rf"(?:(?:{'|'.join(_AHEAD)})\s)?(?:mph|kph|celsius|fahrenheit|{UNIT_NAMES})(?![A-Za-z])"
    short = r"[mgshl](?![A-Za-z])"
    scale = rf"(?:\s(?:{'|'.join((*_SCALES, *_COUNTS, 'percent'))})s?(?![A-Za-z]))"
    unit = rf"{name}(?:\s(?:celsius|fahrenheit|C|F)(?![A-Za-z]))?|{short}(?=\s?/)"
    unit = rf"(?:{unit})(?:\s?(?:/|per\s)\s?(?:{name}|{short}))*(?:\^\{{?[23]\}}?|\s(?:squared|cubed)(?![A-Za-z]))?"
    letter = r"(?-i:\s?(?P<letter>[mgshlL]|(?<!\s)[kMB])(?![A-Za-z'(^_*/]))"
    marked = rf"\s?\\(?:text|mathrm|mbox)\s?\{{\s?(?:{unit}|{short})\s?\}}(?:\^\{{?[23]\}}?)?"
    return re.compile(
        rf"\s?\u00b0(?:\s?[CF](?![A-Za-z]))?|{letter}|{marked}|{scale}+(?:\s{unit})?|\s?{unit}", re.IGNORECASE
    )


_IN_PROSE = _in_prose()
