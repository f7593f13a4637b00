"""Reads LaTeX into sympy and compares, without ever handing text to Python's `eval`; imports sympy, so import it late.

Three things keep `eval` out: only `latex2sympy2_extended`'s ANTLR grammar reads text, never the extractor of plain
expressions in `math-verify`; number tokens, which that package passes through `sympify`, are built here; and a grader
process switches sympy's own string parser off (`forbid_eval`).
"""

import logging
import re
from collections.abc import Collection
from typing import Any

import sympy
import sympy.physics.units  # simplify imports it late, and it parses strings of its own while it loads
from latex2sympy2_extended import NormalizationConfig, normalize_latex
from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy
from math_verify.grader import should_treat_as_complex, verify
from sympy import Basic, MatrixBase
from sympy.core import random as sympy_random
from sympy.parsing import sympy_parser

from igrpo_jax.rewards.normalize import MAX_LENGTH

_ALLOWED = re.compile(r"[A-Za-z0-9\s+\-*/^_=<>!|&.,:;%'()\[\]{}\\]*")
_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_MAX_EXPONENT = 1000
_THOUSANDS = re.compile(r"\s*(-?)([0-9]{1,3}(?:,[0-9]{3})+)(\.[0-9]+)?\s*")
_FUNCTION = re.compile(r"(?<![A-Za-z\\])(sin|cos|tan|cot|sec|csc|log|ln|exp|pi|infty)(?![A-Za-z])")
_ARGUMENT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname|begin|end)\s*\{[^{}]*\}")
_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{3,}")
_ROOT = re.compile(r"\\?sqrt\s*\(([^()]*)\)")
# A blank between two numbers is no product and no sum; subscripts and exponents (`\log_2 8`) are fine.
_TWO_NUMBERS = re.compile(r"(?<![\w^.])[0-9](?:[0-9.]*[0-9])?\s+[0-9]")


class LatexError(ValueError):
    """The text is no mathematics that can be read."""


class _Parser(_Latex2Sympy):
    """The package's converter, with numbers made from their digits instead of through `sympify`."""

    def parse(self, latex_str: str) -> Any:
        number = _THOUSANDS.fullmatch(latex_str)
        if number:  # 1,234 is a number and so is 0,123, with a decimal comma
            digits = number[2].replace(",", ".", 1) if number[2].startswith("0") else number[2]
            return self.parse_number(number[1] + digits + (number[3] or ""))
        return super().parse(latex_str)

    def parse_number(self, text: str) -> Any:
        text = text.replace(",", "")
        if abs(int(text.lower().partition("e")[2] or 0)) > _MAX_EXPONENT:
            raise LatexError("a number too large")
        return sympy.Integer(int(text)) if re.fullmatch(r"-?[0-9]+", text) else sympy.Float(text)


def parse(body: str, *, is_complex: bool, words: Collection[str] | None = None) -> Basic | MatrixBase:
    """Parses LaTeX of at most 1,000 characters.

    Args:
      body: the LaTeX, cleaned, without unit.
      is_complex: whether symbols may be complex; otherwise they are real.
      words: runs of three or more letters that may be read as products of letters; None allows all.

    Raises:
      LatexError: if it is too long, has characters or words that are no mathematics, or does not parse.
    """
    text = _FUNCTION.sub(r"\\\1 ", _ROOT.sub(r"\\sqrt{\1}", re.sub(r"\\?\$", "", body).replace("**", "^")))
    if len(text) > MAX_LENGTH or not _ALLOWED.fullmatch(text):
        raise LatexError("too long or with characters that are no mathematics")
    if _TWO_NUMBERS.search(text):
        raise LatexError("two numbers side by side")
    if words is not None and not _words(text) <= set(words):
        raise LatexError("words that are no mathematics")
    try:
        text = normalize_latex(text, _NORMALIZATION)
        # None, not False: for symbols that cannot be real, `x = 1` and `x = 2` have the same solutions, none.
        parsed = _Parser(is_real=None if is_complex else True).parse(text)
    except (MemoryError, LatexError):
        raise
    except Exception as error:  # the package raises bare Exception
        raise LatexError(f"{type(error).__name__} in parsing") from error
    if not isinstance(parsed, Basic | MatrixBase) or parsed in (sympy.nan, sympy.zoo):
        raise LatexError("no expression, or undefined")
    return parsed


def equal(answer: Basic | MatrixBase, gold: Basic | MatrixBase) -> bool:
    """`math-verify`'s comparison, without its signal-based timeout and with sympy's random numbers fixed."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    sympy_random.seed(0)
    return bool(verify(gold, answer, timeout_seconds=None, raise_on_error=True))


def looks_complex(body: str) -> bool:
    """Whether the text seems to be about complex numbers or matrices."""
    return should_treat_as_complex(body)


def words(body: str) -> set[str]:
    """The runs of three or more letters that would be read as products of letters."""
    return _words(_FUNCTION.sub(r"\\\1 ", body))


def forbid_eval() -> None:
    """Switches sympy's string parser, which is an `eval`, off for the rest of this process."""
    sympy_parser.eval_expr = _refuse


def _words(text: str) -> set[str]:
    return set(_WORD.findall(_ARGUMENT.sub(" ", text))) - {"and"}


def _refuse(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a grader process does not evaluate text")
