"""Is this answer the gold answer? By exact string, then by exact number, then symbolically."""

import math
import re

from igrpo_jax.rewards.normalize import MAX_LENGTH, Quantity, clean, gold_text, plain, quantity
from igrpo_jax.rewards.number import read_number, same_number
from igrpo_jax.rewards.verdict import Verdict

_WORDS = re.compile(r"[A-Za-z][A-Za-z '-]*")
_ASSIGNMENT = re.compile(r"^\\?[A-Za-z]+(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?\s*=\s*")


def compare(answer: str, gold: str) -> Verdict:
    """Compares an answer with the gold answer: exact string, then number, then `math-verify`'s rules for expressions.

    The symbolic part may take arbitrarily long and much memory (`9^{9^{9^9}}`), so for text that a model wrote call it
    through `GraderPool`; `compare_text` alone is safe anywhere. No text reaches Python's `eval`.

    Args:
      answer: an extracted answer, LaTeX or plain.
      gold: the gold answer; `#### 5` and a box around it are unpacked.

    Returns:
      Verdict 1.0 for exact, number, symbolic; 0.0 for unequal, parse_failed, bad_gold, error.
    """
    verdict = compare_text(answer, gold)
    return compare_symbolic(answer, gold) if verdict is None else verdict


def compare_text(answer: str, gold: str) -> Verdict | None:
    """What strings, units, numbers and words tell about equality; None where only symbolic comparison can.

    Linear time, no sympy.
    """
    if len(answer) > MAX_LENGTH:
        return Verdict(0.0, "parse_failed", answer[:MAX_LENGTH], f"longer than {MAX_LENGTH} characters")
    if len(gold_text(gold)) > MAX_LENGTH:
        return Verdict(0.0, "bad_gold", answer, f"longer than {MAX_LENGTH} characters")
    ours, theirs = _pair(answer, gold)
    if not ours.body or not theirs.body:
        return Verdict(0.0, "parse_failed" if theirs.body else "bad_gold", answer, "empty")
    if not _same_unit(ours.unit, theirs.unit):
        return Verdict(0.0, "unequal", answer)
    a, b = plain(ours.body), plain(theirs.body)
    if a == b:
        return Verdict(1.0, "exact", answer)
    number, gold_number = read_number(ours.body), read_number(theirs.body)
    if number is not None and gold_number is not None:
        return Verdict(1.0, "number", answer) if same_number(number, gold_number) else Verdict(0.0, "unequal", answer)
    # As products of letters, words would equal their anagrams.
    if _WORDS.fullmatch(a) and _WORDS.fullmatch(b) and max(len(a), len(b)) >= 3:
        return Verdict(1.0, "exact", answer) if a.casefold() == b.casefold() else Verdict(0.0, "unequal", answer)
    return None


def compare_symbolic(answer: str, gold: str) -> Verdict:
    """Compares as sympy expressions by `math-verify`'s rules for sets, intervals, tuples, equations and rounding."""
    from igrpo_jax.rewards import latex

    ours, theirs = _pair(answer, gold)
    if not _same_unit(ours.unit, theirs.unit):
        return Verdict(0.0, "unequal", answer)
    is_complex = latex.looks_complex(ours.body) or latex.looks_complex(theirs.body)
    try:
        right = latex.parse(theirs.body, is_complex=is_complex)
    except latex.LatexError as error:
        return Verdict(0.0, "bad_gold", answer, str(error))
    try:
        left = latex.parse(ours.body, is_complex=is_complex, words=latex.words(theirs.body))
    except latex.LatexError as error:
        return Verdict(0.0, "parse_failed", answer, str(error))
    try:
        equal = latex.equal(left, right)
    except MemoryError:
        raise
    except Exception as error:  # what math-verify has no rule for, such as two inequations with \ne
        return Verdict(0.0, "error", answer, f"{type(error).__name__}: {error}")
    return Verdict(1.0, "symbolic", answer) if equal else Verdict(0.0, "unequal", answer)


def gold_is_parsable(gold: object) -> bool:
    """Whether a gold answer can be compared with: a number, at most four words, or LaTeX that parses.

    LaTeX costs some ten milliseconds each the first time; map it over a `GraderPool` where the rows are many or not
    trusted.
    """
    from igrpo_jax.rewards import latex

    if not isinstance(gold, str):
        return isinstance(gold, int | float) and math.isfinite(gold)
    if len(gold_text(gold)) > MAX_LENGTH:
        return False
    body = _read(gold_text(gold)).body
    text = plain(body)
    if read_number(body) is not None or (_WORDS.fullmatch(text) and len(text.split()) <= 4):
        return True
    if any(len(word) > 3 and not word.isupper() for word in latex.words(body)):
        return False  # prose parses too, as a product of its letters
    try:
        latex.parse(body, is_complex=latex.looks_complex(body))
    except latex.LatexError:
        return False
    return True


def warm_up() -> None:
    """Imports sympy and lets the grammar's caches fill, so that the first comparison is not slower than the others."""
    from igrpo_jax.rewards import latex

    latex.forbid_eval()
    for answer, gold in (
        (r"\frac{\sqrt{3}}{2}", r"\frac{3}{2\sqrt{3}}"),
        ("x=2", r"\{2\}"),
        (r"(1,2]\cup[3,\infty)", "x>1"),
    ):
        compare(answer, gold)


def _pair(answer: str, gold: str) -> tuple[Quantity, Quantity]:
    ours, theirs = clean(answer), clean(gold_text(gold))
    # `x = 5` answers `5` and the other way round, but not `y = 5`.
    if ours.count("=") + theirs.count("=") == 1:
        ours, theirs = _ASSIGNMENT.sub("", ours), _ASSIGNMENT.sub("", theirs)
    return quantity(ours), quantity(theirs)


def _read(text: str) -> Quantity:
    return quantity(clean(text))


def _same_unit(unit: str, gold_unit: str) -> bool:
    return not unit or not gold_unit or unit == gold_unit
