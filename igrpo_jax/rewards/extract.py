r"""Finds the answer in a completion: the last `\boxed{}` or `<answer>`, else the last expression, in linear time."""

import re
from collections import deque

from igrpo_jax.rewards.prose import last_expression, whole_expression
from igrpo_jax.rewards.reading.spelling import ascii_digits

_BOX = re.compile(
    r"\\\\?(?:boxed|fbox)\s*+(?:(?P<open>\{)|(?P<token>-?[0-9][^\s{}\\$]*+))|\\.|(?P<brace>[{}])",
    re.DOTALL,
)
_FINAL = re.compile(r"final answer is\s*:?", re.IGNORECASE)
_MAX_SENTENCE = 500
_SENTENCE = re.compile(r"(?:[^.\n]|\.(?!\s|$)|\n(?!\s*\n))*+")
# What may stand between two boxes that are one answer: `\boxed{1} and \boxed{2}`.
_BETWEEN = re.compile(
    r"(?:[\s,;.$&]|\\[\[\]() ,;]|\\q?quad|\\text\s*\{\s*(?:and|or)\s*\}|and|or|[A-Za-z](?:_\{?[0-9]\}?)?\s*=)*+"
)
_LINKED = re.compile(
    r"\s*(?:\\text\s*\{)?\s*(?:(?!no|not|so|is|are|wait|then|thus|but)[a-z()]+\s){1,4}(?:and|or)[\s}$]*"
)


def extract_answer(completion: str) -> str | None:
    r"""Reads the final answer of a completion, None if there is none.

    Thoughts are no answer: only what follows the last `</think>` counts, and in front of a `<think>`. Among well-formed
    `\boxed{...}` (also `\fbox{...}`, `\boxed 5`) and `<answer>...</answer>` the last one counts, with a box in front of
    it if there is nothing but `,` or `and` between; a box inside `<answer>` is unpacked. A box that never closes is
    none. What is said behind `final answer is` counts where it stands behind these. Without any, the last expression
    counts, which is mostly a number (`igrpo_jax.rewards.prose`). Time is linear in the length of the completion.

    >>> extract_answer(r"so \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    >>> extract_answer("first 3, then 1,250.5 in all.")
    '1,250.5'
    """
    completion = ascii_digits(completion)
    return _read(completion.rpartition("</think>")[2].partition("<think>")[0])


def gold_text(gold: str) -> str:
    r"""The answer inside a gold column: what follows the last `####`, the content of a `\boxed{}`, else the text."""
    text = gold.rpartition("####")[2]
    box = last_box(text)
    return text.strip() if box is None else box[1]


def last_box(text: str) -> tuple[int, str] | None:
    """End and content of the non-empty box that starts last among those whose braces close.

    Boxes in front of it with nothing but separators between belong to it; their contents are joined by commas.
    """
    boxes = _boxes(text)
    while boxes and not text[slice(*boxes[-1][1:3])].strip():
        boxes.pop()
    if not boxes:
        return None
    start, *_, end = boxes[-1]
    contents = [text[slice(*boxes.pop()[1:3])].strip()]
    while boxes and boxes[-1][3] <= start and _together(text, boxes[-1][3], start):
        start, first, last, _ = boxes.pop()
        if text[first:last].strip():
            contents.append(text[first:last].strip())
    return end, ", ".join(dict.fromkeys(reversed(contents)))


def _together(text: str, first: int, last: int) -> bool:
    return bool(_BETWEEN.fullmatch(text, first, last) or (last - first < 40 and _LINKED.fullmatch(text, first, last)))


def last_tag(text: str) -> tuple[int, str] | None:
    """End and content of the last `<answer>` that is closed and not empty."""
    limit = len(text)
    while True:
        closing = text.rfind("</answer>", 0, limit)
        limit = text.rfind("<answer>", 0, max(closing, 0))
        if limit < 0:
            return None
        end = text.index("</answer>", limit)
        content = text[limit + len("<answer>") : end].strip()
        if content:
            return end, content


def _boxes(text: str) -> list[tuple[int, int, int, int]]:
    """Start, bounds of the content and end of every box that closes, in the order of their starts."""
    found: list[tuple[int, int, int, int]] = []
    stack: list[tuple[int, int] | None] = []
    for match in _BOX.finditer(text):
        if match["open"]:
            stack.append((match.start(), match.end()))
        elif match["brace"] == "{":
            stack.append(None)
        elif match["token"]:
            first = match.start("token")
            found.append((match.start(), first, first + len(match["token"].rstrip(".,;:)")), match.end()))
        elif match["brace"] and stack:
            opened = stack.pop()
            if opened is not None:
                found.append((*opened, match.start(), match.end()))
    return sorted(found)


def _read(text: str) -> str | None:
    found = _marked(text)
    place = 0 if found is None else found[0]
    said = None
    for match in deque(_FINAL.finditer(text, place), maxlen=3):
        sentence = _SENTENCE.match(text, match.end(), match.end() + _MAX_SENTENCE)
        said = whole_expression(sentence[0] if sentence else "") or said
    if said is not None:
        return said
    return last_expression(text) if found is None else found[1]


def _marked(text: str) -> tuple[int, str] | None:
    box, tag = last_box(text), last_tag(text)
    if tag is None or (box is not None and box[0] > tag[0]):
        return box
    inner = last_box(tag[1])
    return tag if inner is None else (tag[0], inner[1])
