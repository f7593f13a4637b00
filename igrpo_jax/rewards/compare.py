"""Is this answer the gold answer? By exact string, then by exact number, then as expressions."""

import math
import re

from igrpo_jax.rewards.extract import gold_text
from igrpo_jax.rewards.normalize import MAX_LENGTH, Quantity, clean, plain, quantity
from igrpo_jax.rewards.number import read_number, read_numeral, same_number
from igrpo_jax.rewards.reading import Node, ReadError, TooLarge, letter_runs, read
from igrpo_jax.rewards.reading.commands import CONSTANTS
from igrpo_jax.rewards.reading.tokens import NAMED, SHORT_WORD
from igrpo_jax.rewards.reading.units import same_unit
from igrpo_jax.rewards.verdict import Verdict

_WORDS = re.compile(r"[A-Za-z][A-Za-z '-]*|[A-Za-z]{3}[A-Za-z '-]*[0-9]{1,4}")  # also a date
# Two capitals are a Roman number or a name, as three are; two letters of lower case are a product.
_CAPITALS = re.compile(r"[A-Z]{2}(?:(?:,|;| and | or )[A-Z]{2})*")
_NO_NAMES = "|".join(name for name, command in NAMED.items() if command[1:] in CONSTANTS)
_ASSIGNMENT = re.compile(
    rf"^(?!\\?(?:{_NO_NAMES})(?![A-Za-z]))\\?[A-Za-z]+(?:_(?:[A-Za-z0-9]|\{{[A-Za-z0-9]+\}}))?\s*=\s*"
)
_OPTION = re.compile(r"(?:\\(?:text|textbf|mathbf|mathrm|textrm)\s*\{\s*)?\(?([A-Z])[).:]\s*\}?\s*(?P<value>\S.*)?")
_JOINS = re.compile(r"[,;/&|]|(?:or|and|not)(?![A-Za-z])")
_LETTER = re.compile(r"(?<![A-Za-z0-9\\])([A-H])(?![A-Za-z0-9'])|\(([a-h])\)")
_TIME = re.compile(r"0?([0-9]|1[0-9]|2[0-4]):([0-5][0-9])")


def compare(answer: str, gold: str) -> Verdict:
    """Compares an answer with the gold answer: exact string, then number, then as expressions (docs/grading.md).

    No text reaches Python's `eval`, and work is counted, so it ends soon for every text. For text that a model wrote
    call it through `GraderPool` all the same; `compare_text` alone is safe anywhere.

    Args:
      answer: an extracted answer, LaTeX or plain.
      gold: the gold answer; `#### 5` and a box around it are unpacked.

    Returns:
      Verdict 1.0 for exact, number, symbolic; 0.0 for unequal, too_large, parse_failed, bad_gold, error.
    """
    verdict = compare_text(answer, gold)
    return compare_symbolic(answer, gold) if verdict is None else verdict


def compare_text(answer: str, gold: str) -> Verdict | None:
    """What strings, units, numbers and words tell about equality; None where only expressions can.

    Linear time, no arithmetic but of numbers as long as the text.
    """
    if len(answer) > MAX_LENGTH:
        return Verdict(0.0, "parse_failed", answer[:MAX_LENGTH], f"longer than {MAX_LENGTH} characters")
    if len(gold_text(gold)) > MAX_LENGTH:
        return Verdict(0.0, "bad_gold", answer, f"longer than {MAX_LENGTH} characters")
    ours, theirs = _pair(answer, gold)
    if not ours.body or not theirs.body:
        return Verdict(0.0, "parse_failed" if theirs.body else "bad_gold", answer, "empty")
    if not same_unit(ours.unit, theirs.unit):
        return Verdict(0.0, "unequal", answer)
    a, b = plain(ours.body), plain(theirs.body)
    if a == b:
        return Verdict(1.0, "exact", answer)
    same = _same_form(ours.body, theirs.body)
    if same is not None:
        return Verdict(1.0, "number", answer) if same else Verdict(0.0, "unequal", answer)
    same = _same_words(a, b)
    if same is not None:
        return Verdict(1.0, "exact", answer) if same else Verdict(0.0, "unequal", answer)
    return None


def compare_symbolic(answer: str, gold: str) -> Verdict:
    """Compares as trees of mathematics: values, sets, intervals, tuples, equations, matrices."""
    from igrpo_jax.rewards.equality import equal

    ours, theirs = _pair(answer, gold)
    if not same_unit(ours.unit, theirs.unit):
        return Verdict(0.0, "unequal", answer)
    try:
        right = read(theirs.body)
    except ReadError as error:
        return Verdict(0.0, "bad_gold", answer, str(error))
    try:
        left = read(ours.body, words=letter_runs(theirs.body))
    except (ReadError, RecursionError) as error:
        return Verdict(0.0, "parse_failed", answer, str(error))
    try:
        same = equal(left, right)
    except TooLarge as error:
        return Verdict(0.0, "too_large", answer, str(error))
    except ReadError as error:
        return Verdict(0.0, "parse_failed", answer, str(error))
    except MemoryError:
        raise
    except Exception as error:  # what no rule foresaw
        return Verdict(0.0, "error", answer, f"{type(error).__name__}: {error}"[:200])
    return Verdict(1.0, "symbolic", answer) if same else Verdict(0.0, "unequal", answer)


def gold_is_parsable(gold: object) -> bool:
    """Whether a gold answer can be compared with: a number, at most four words, or mathematics that has a meaning."""
    if not isinstance(gold, str):
        return isinstance(gold, int | float) and math.isfinite(gold)
    if len(gold_text(gold)) > MAX_LENGTH:
        return False
    body = quantity(clean(gold_text(gold))).body
    text, numeral = plain(body), read_numeral(body)
    if (
        read_number(body) is not None
        or (numeral and numeral.base)
        or (_WORDS.fullmatch(text) and len(text.split()) <= 4)
    ):
        return True
    try:
        if any(len(word) > 3 and not word.isupper() for word in letter_runs(body)):
            return False  # prose parses too, as a product of its letters
        return _has_meaning(read(body))
    except TooLarge:
        return True  # what is written the same way is the same
    except Exception:
        return False


def warm_up() -> None:
    """Imports what comparing needs, so that the first comparison is not slower than the others."""
    compare(r"\frac{\sqrt{3}}{2}", r"\frac{3}{2\sqrt{3}}")


def _has_meaning(tree: Node) -> bool:
    from igrpo_jax.rewards.equality import equal

    return equal(tree, tree)


def _pair(answer: str, gold: str) -> tuple[Quantity, Quantity]:
    ours, theirs = _without_option(clean(answer), clean(gold_text(gold)))
    # `x = 5` answers `5` and the other way round, but not `y = 5`.
    if ours.count("=") + theirs.count("=") == 1:
        ours, theirs = _ASSIGNMENT.sub("", ours), _ASSIGNMENT.sub("", theirs)
    return quantity(ours), quantity(theirs)


def _without_option(answer: str, gold: str) -> tuple[str, str]:
    """Where only one of them has an option's letter with its value, `(A) 5`, only what the other one has of it."""
    ours, theirs = _option(answer), _option(gold)
    if ours and theirs:
        if not (ours["value"] and theirs["value"]):
            return ours[1], theirs[1]
        return (ours["value"], theirs["value"]) if ours[1] == theirs[1] else (ours[1], theirs[1])
    if ours:
        return _part(ours, gold) or answer, gold
    return answer, (theirs and _part(theirs, answer)) or gold


def _option(text: str) -> re.Match[str] | None:
    """A text that is one option and names no other."""
    match = _OPTION.fullmatch(text)
    value = match["value"] or "" if match else ""
    others = {capital or small.upper() for capital, small in _LETTER.findall(value)} - {match[1] if match else ""}
    return None if others or _JOINS.match(value) else match


def _part(option: re.Match[str], other: str) -> str | None:
    """An option's letter if the other answer is a letter, else its value."""
    return option[1] if re.fullmatch(r"\(?[A-Z]\)?", other) else option["value"]


def _same_words(answer: str, gold: str) -> bool | None:
    """Whether two words are the same, None if they are none; as products of letters they would equal anagrams."""
    if _CAPITALS.fullmatch(answer) and _CAPITALS.fullmatch(gold):
        return sorted(re.findall("[A-Z]+", answer)) == sorted(re.findall("[A-Z]+", gold))
    if not (_WORDS.fullmatch(answer) and _WORDS.fullmatch(gold)):
        return None
    if max(len(answer), len(gold)) < 3 and not (SHORT_WORD.fullmatch(answer) and SHORT_WORD.fullmatch(gold)):
        return None
    return answer.casefold() == gold.casefold()


def _same_form(answer: str, gold: str) -> bool | None:
    """Whether two numbers, or numerals with a base, or two times of day, are the same; None if they are not both."""
    numerals = [read_numeral(text) for text in (answer, gold)]
    if numerals[0] and numerals[1] and numerals[1].base:
        left_out = numerals[0].base is None and numerals[1].digits == numerals[1].digits.upper()
        same_base = left_out or numerals[0].base == numerals[1].base
        return same_base and numerals[0].digits.upper() == numerals[1].digits.upper()
    comma = re.fullmatch(r"([0-9]+),(?![0-9]{3}$)([0-9]+)", answer)
    if comma and "." in gold and "," not in gold:  # only as a decimal comma does it mean one number
        answer = f"{comma[1]}.{comma[2]}"
    if re.fullmatch(r"0,[0-9]+", gold):  # two numbers, whatever the answer takes a comma for
        return None
    times = [_TIME.fullmatch(text) for text in (answer, gold)]
    if times[0] and times[1]:
        return times[0].groups() == times[1].groups()
    ours, theirs = read_number(answer), read_number(gold)
    return None if ours is None or theirs is None else same_number(ours, theirs)
