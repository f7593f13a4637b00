r"""Finds the last expression of a text without a box: a formula between `$`, or a number and what it is part of."""

import re
from collections import deque
from typing import NamedTuple

from igrpo_jax.rewards.normalize import clean, quantity
from igrpo_jax.rewards.reading import ReadError, read
from igrpo_jax.rewards.reading.tokens import NAMED
from igrpo_jax.rewards.reading.units import UNIT_NAMES, unit_behind

_NUMBER = re.compile(
    r"(?:(?<![0-9A-Za-z)\]}])[-\u2212](?:\\?\$)?)?"  # a sign, unless it is a minus between two things
    r"(?:\\[dt]?frac\{-?[0-9]++\}\{[0-9]++\}"
    r"|(?<![0-9A-Za-z_])(?:(?<![0-9,.])[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9.,])"
    r"|(?<![0-9,.])[0-9]++,(?![0-9]{3}(?![0-9]))[0-9]++(?![0-9,])|(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)"
    r"(?:[eE][-+]?[0-9]++(?![A-Za-z]))?"
    r"(?:/[0-9]++(?!\.[0-9]))?(?:\s?\\?%)?)"
)
_DELIMITER = re.compile(r"\\\\|\\\$|\$\$|\$|\\[()\[\]]")
_CLOSING = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_PROSE = re.compile(r"(?<![\\A-Za-z])(?!(?:" + "|".join(NAMED) + r")(?![A-Za-z]))[A-Za-z]{3,}|<<|>>")
_WORD = re.compile(r"\s*[A-Za-z]+\s*")
_TEXT = re.compile(r"\\(?:text[a-z]*|mathrm|mathbf|mbox|operatorname|begin|end)\s*\{[^{}]*\}")
_PIECE = re.compile(
    r"(?P<space>[ \t]+)|(?P<command>\\(?!boxed|fbox)[A-Za-z]+)|(?P<number>[0-9]+(?:[.,][0-9]+)*|\.[0-9]+)"
    r"|(?P<word>[A-Za-z]+)|(?P<open>\\\{|[(\[{])|(?P<close>\\\}|[)\]}])|(?P<mark><<|>>)|(?P<sign>\\?[-+*/^_=<>|!%,;:])|(?P<other>.)"
)
_MAX_LENGTH = 300
_TIMES = {r"\times", r"\cdot", r"\div", r"\ast"}
_UNIT_LETTERS = set("mgshlLkKMBCFN")
_CURRENCIES = ("\u20ac", "\u00a3")
_LONGEST_UNIT, _MAX_POWERS = 20, 5
_POWER_OF_UNIT = re.compile(rf"(?:{UNIT_NAMES})\^\{{?$", re.IGNORECASE)


class Piece(NamedTuple):
    """A piece of a line: a number, word, bracket, sign, command, blank or something else, and where it stands."""

    kind: str
    text: str
    start: int
    end: int


def last_expression(text: str) -> str | None:
    r"""The last expression of a text as it is written there, with its unit, without a dollar sign.

    That is the last formula in `$...$`, `\(...\)` or `\[...\]`, or, behind it, the last number: with thousands
    separators, decimals, sign, fraction, percent and exponent. A number that is part of a larger expression, such as
    `(4, 6)`, `2\sqrt{5}` or `x^2+1`, is no answer; the expression is, from its last `=` on. A letter or word alone
    counts only if there is no number. Words that are no known units are left out.

    >>> last_expression("it is at (4, 6).")
    '(4, 6)'
    >>> last_expression("7 + 5 = 12")
    '12'
    """
    formula = _last_formula(text)
    start = 0 if formula is None else formula[1]
    last = _last_number(text, start)
    if last is None:
        return None if formula is None else formula[2] + (unit_behind(text, formula[1]) if formula[1] else "")
    found, end = _around(text, start, last) or (_number(text, last), last.end())
    return found + unit_behind(text, end)


def _last_number(text: str, start: int) -> re.Match[str] | None:
    """The last number that is no power of a unit."""
    end = len(text)
    for _ in range(_MAX_POWERS):
        found = deque(_NUMBER.finditer(text, start, end), maxlen=1)
        if not found or not _POWER_OF_UNIT.search(text, max(start, found[0].start() - _LONGEST_UNIT), found[0].start()):
            return found[0] if found else None
        end = found[0].start()
    return None


def _number(text: str, number: re.Match[str]) -> str:
    before = text[: number.start()][-1:]
    return before * (before in _CURRENCIES) + re.sub(r"\\?\$", "", number[0]).replace("\u2212", "-").strip()


def whole_expression(text: str) -> str | None:
    """All of a text if there is nothing but mathematics in it, else its last expression."""
    whole = re.sub(r'[$"]|\\"', "", text).strip(" '*:.,")
    if any(character.isalnum() for character in whole) and not _PROSE.search(
        _TEXT.sub("", re.sub(r"\band\b", "", whole))
    ):
        return whole
    return last_expression(text)


def _last_formula(text: str) -> tuple[int, int, str] | None:
    """Start, end and content of the last formula that says something; else the last word between marks."""
    opened: re.Match[str] | None = None
    found = letter = None
    for match in _DELIMITER.finditer(text):
        mark = match[0]
        if opened is not None and mark == _CLOSING[opened[0]]:
            content = text[opened.end() : match.start()]
            if _is_formula(content, mark, text[match.end() : match.end() + 1]):
                inner = _result(content)
                if _WORD.fullmatch(inner):
                    letter = (opened.start(), 0, inner)
                elif inner:
                    found = (opened.start(), match.end(), inner)
                opened = None
                continue
            opened = match if mark in ("$", "$$") else None
        elif mark in _CLOSING and (opened is None or mark in (r"\(", r"\[")):
            opened = match
    return found or letter


def _is_formula(content: str, mark: str, behind: str) -> bool:
    """Whether what stands between two marks is mathematics: two prices have a `$` each, too."""
    if not content.strip() or len(content) > 4 * _MAX_LENGTH or "\n\n" in content:
        return False
    blank = content[-1].isspace() or content[0].isspace()
    if mark == "$" and "\\" not in content and (blank or behind.isdigit()):
        return False
    if _WORD.fullmatch(content):
        return True
    return r"\begin{" in content or not _PROSE.search(_TEXT.sub("", content))


def _result(content: str) -> str:
    """A formula without alignment; of several lines the last one's right side."""
    lines = re.split(r"\\\\(?:\[[^\]]*\])?", content)
    if re.search(r"\\begin\{(?:align|gather|split|eqn|multline)", content) or "&=" in content.replace(" ", ""):
        content = re.sub(r"\\(?:begin|end)\{[a-z]+\*?\}", "", [line for line in lines if line.strip()][-1])
        content = content.replace("&", "").rpartition("=")[2]
    return content.strip().rstrip(".,;:").strip()


def _around(text: str, start: int, number: re.Match[str]) -> tuple[str, int] | None:
    """The expression around a number if it is more than a number, and where it ends."""
    first = max(text.rfind("\n", start, number.start()) + 1, start, number.start() - _MAX_LENGTH)
    last = text.find("\n", number.end())
    last = min(len(text) if last < 0 else last, number.end() + _MAX_LENGTH)
    pieces = [Piece(str(m.lastgroup), m[0], m.start(), m.end()) for m in _PIECE.finditer(text, first, last)]
    middle = next((i for i, piece in enumerate(pieces) if piece.start < number.end() <= piece.end), None)
    if middle is None:
        return None
    low = high = middle
    while low > 0 and _joins(pieces, low - 1, low):
        low -= 1
    while high + 1 < len(pieces) and _joins(pieces, high + 1, high):
        high += 1
    low, high = _balanced(pieces, low, high, middle)
    low = _behind_equals(pieces, low, middle)
    kinds = [piece for piece in pieces[low : high + 1] if piece.kind != "space"]
    while kinds and kinds[-1].kind == "sign" and kinds[-1].text not in ("!", "%", r"\%", "|"):
        kinds.pop()
    while kinds and kinds[0].kind == "sign" and kinds[0].text not in ("-", "|"):
        kinds.pop(0)
    if not kinds or not _is_more(kinds):
        return None
    found = text[kinds[0].start : kinds[-1].end].strip()
    if _NUMBER.fullmatch(found) or len(found) > _MAX_LENGTH or not _is_readable(found):
        return None
    return found, kinds[-1].end


def _joins(pieces: list[Piece], new: int, near: int) -> bool:
    """Whether a piece goes on with the expression that its neighbor ends."""
    kind, text = pieces[new][:2]
    if kind in ("other", "mark"):
        return False
    if text == ":":  # of a ratio or a time
        beside = [pieces[i].kind for i in (new - 1, new + 1) if 0 <= i < len(pieces)]
        return beside == ["number", "number"]
    if kind == "word":
        tight = pieces[near].kind != "space"
        return text in NAMED or (len(text) == 1 and (tight or _signed(pieces, new, near)))
    return True


def _signed(pieces: list[Piece], new: int, near: int) -> bool:
    """Whether a sign stands behind the blank that is next to a letter."""
    step = near - new
    place = near + step
    return 0 <= place < len(pieces) and pieces[place].kind == "sign" and pieces[place].text not in (",", ";", ":")


def _is_readable(text: str) -> bool:
    try:
        read(quantity(clean(text)).body)
    except ReadError:
        return False
    return True


def _balanced(pieces: list[Piece], low: int, high: int, middle: int) -> tuple[int, int]:
    """The longest part around the middle in which every bracket has its partner and no comma stands outside of any."""
    stack: list[int] = []
    begin, end = low, high
    for place in range(low, high + 1):
        kind, text = pieces[place][:2]
        if kind == "open":
            stack.append(place)
        elif kind == "close":
            if stack:
                stack.pop()
            elif place < middle:
                begin = place + 1
            else:
                end = place - 1
                break
        elif text in (",", ";") and not stack:
            if place < middle:
                begin = place + 1
            else:
                end = place - 1
                break
    for place in stack:
        if place < middle:
            begin = max(begin, place + 1)
        else:
            end = min(end, place - 1)
    return begin, end


def _behind_equals(pieces: list[Piece], low: int, middle: int) -> int:
    depth = 0
    for place in range(middle, low - 1, -1):
        kind, text = pieces[place][:2]
        depth += (kind == "close") - (kind == "open")
        if depth <= 0 and text in ("=", r"\approx"):
            return place + 1
    return low


def _is_more(pieces: list[Piece]) -> bool:
    """Whether pieces are more than numbers with signs, a unit or brackets: a sum without its result is no answer."""
    texts = [piece.text for piece in pieces]
    if any(
        (piece.kind == "command" and piece.text not in _TIMES) or piece.text in ("^", "_", "!", "<", ">", "|")
        for piece in pieces
    ):
        return True
    if any(text in NAMED for text in texts):
        return True
    if any(text in (",", ";", ":") for text in texts):
        return sum(piece.kind == "number" for piece in pieces) > 1
    kinds = ["", *(piece.kind for piece in pieces), ""]
    letters = [
        text
        for i, (kind, text) in enumerate(zip(kinds[1:], texts, strict=False))
        if kind == "word" and not (text == "x" and kinds[i] == kinds[i + 2] == "number")
    ]
    return any(text not in _UNIT_LETTERS for text in letters)
