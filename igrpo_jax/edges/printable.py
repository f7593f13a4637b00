"""Text of data and models as it may be shown: nothing in it moves a cursor, changes a terminal or turns the reading."""

import sys
import unicodedata
from typing import Any


def printable(text: str) -> str:
    r"""A text whose invisible characters are written out; line ends, tabs and all kinds of blanks stay.

    Written out are control characters (escape sequences of terminals begin with one, as U+001B or U+009B), marks of no
    width and of direction, surrogates, and what Unicode has not assigned.

    >>> printable("a\x1b[2J\u202eb\nc")
    'a\\x1b[2J\\u202eb\nc'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" or _is_blank(c) else _escaped(c) for c in text)


def say(text: Any) -> None:
    """A line on standard error, as it may be shown, written in one piece."""
    print(f"{printable(str(text))}\n", file=sys.stderr, end="", flush=True)


def _is_blank(character: str) -> bool:
    return unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
