r"""Cuts cleaned LaTeX or plain mathematics into tokens."""

import re
from typing import NamedTuple

from igrpo_jax.rewards.reading.nodes import ReadError

_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+(?![0-9.A-Za-z]))?)"
    r"|(?P<row>\\\\)"
    r"|(?P<command>\\(?:[A-Za-z]+|[{}|]))"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<sign><=|>=|!=|\*\*|[-+*/^_=<>!|&,:;%'()\[\]{}.])"
)
_COMMANDS = {
    r"\leq": "<=", r"\le": "<=", r"\leqslant": "<=", r"\geq": ">=", r"\ge": ">=", r"\geqslant": ">=",
    r"\lt": "<", r"\gt": ">", r"\ne": "!=", r"\neq": "!=", r"\times": "*", r"\cdot": "*", r"\ast": "*",
    r"\div": "/", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\vert": "|",
    r"\lvert": "|", r"\rvert": "|", r"\colon": ":", r"\prime": "'", r"\backslash": r"\setminus",
    r"\smallsetminus": r"\setminus", r"\land": "and", r"\wedge": "and", r"\lor": "or", r"\vee": "or",
    r"\dbinom": r"\binom", r"\tbinom": r"\binom",
    r"\epsilon": r"\varepsilon", r"\phi": r"\varphi", r"\simeq": r"\approx", r"\cong": r"\approx",
    r"\lVert": r"\|", r"\rVert": r"\|", r"\Vert": r"\|", r"\Pr": "P", r"\imath": "i",
}  # fmt: skip
NAMED = {
    **{
        name: f"\\{name}"
        for name in (
            "sqrt sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp pi infty alpha beta gamma "
            "theta lambda omega binom gcd lcm max min floor ceil abs det"
        ).split()
    },
    "asin": r"\arcsin",
    "acos": r"\arccos",
    "atan": r"\arctan",
    "infinity": r"\infty",
    "inf": r"\infty",
}
"""Words that are read as commands although no backslash stands before them."""

SHORT_WORD = re.compile(r"[A-Za-z][oO]|[oO][A-Za-z]")
"""Two letters that are a word, as no and on are: `o` is no factor, for it would be read as a zero."""


class Token(NamedTuple):
    """A token: `kind` is number, word (one letter), command, sign, row or end; `run` is the word a letter stands in."""

    kind: str
    text: str
    spaced: bool = False
    run: str = ""


def tokenize(text: str) -> list[Token]:
    """Tokens of a text, with an end token behind them.

    Raises:
      ReadError: for characters that are no mathematics.
    """
    tokens: list[Token] = []
    place, spaced = 0, False
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ReadError(f"{text[place]!r} is no mathematics")
        place, kind, found = match.end(), match.lastgroup, match[0]
        if kind == "space":
            spaced = True
            continue
        if kind == "word" and found not in NAMED and found.lower() not in ("and", "or"):
            tokens += [Token("word", letter, spaced and not i, found) for i, letter in enumerate(found)]
        else:
            tokens.append(_plain(str(kind), found, spaced))
        spaced = False
    return [*tokens, Token("end", "")]


def _plain(kind: str, found: str, spaced: bool) -> Token:
    found = NAMED.get(found, found) if kind == "word" else found
    found = _COMMANDS.get(found, found)
    found = {"**": "^"}.get(found, found)
    if found.lower() in ("and", "or"):
        return Token("sign", found.lower(), spaced)
    if len(found) == 1 and found.isalpha():
        return Token("word", found, spaced, found)
    if kind in ("command", "word"):
        return Token("command" if found.startswith("\\") else "sign", found, spaced)
    return Token(kind, found, spaced)
