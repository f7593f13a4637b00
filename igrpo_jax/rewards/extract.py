r"""Finds the answer in a completion: the last `\boxed{}` or `<answer>`, else the last number, in linear time."""

import re

_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*+(?:(?P<open>\{)|(?P<token>-?[0-9][^\s{}\\$]*+))|\\.|(?P<brace>[{}])",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?:(?<![0-9A-Za-z)\]}])[-\u2212](?:\\?\$)?)?"  # a sign, unless it is a minus between two things
    r"(?:\\[dt]?frac\{-?[0-9]++\}\{[0-9]++\}"
    r"|(?<![0-9A-Za-z_])(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++)"
    r"(?:[eE][-+]?[0-9]++(?![A-Za-z]))?"
    r"(?:/[0-9]++(?!\.[0-9]))?(?:\s?\\?%)?)"
)


def extract_answer(completion: str) -> str | None:
    r"""Reads the final answer of a completion, None if there is none.

    Where a `</think>` is followed by an answer, only the text after the last one counts. Among well-formed
    `\boxed{...}` (also `\fbox{...}`, `\boxed 5`) and `<answer>...</answer>` the last one counts; a box inside
    `<answer>` is unpacked. Without any, the last number counts: thousands separators, decimals, signs, fractions,
    percent and exponents belong to it. Time is linear in the length of the completion.

    >>> extract_answer(r"so \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    >>> extract_answer("first 3, then 1,250.5 in all.")
    '1,250.5'
    """
    _, tag, rest = completion.rpartition("</think>")
    if tag:
        found = _marked(rest) or last_number(rest)
        if found is not None:
            return found
    return _marked(completion) or last_number(completion)


def last_box(text: str) -> tuple[int, str] | None:
    """End and content of the non-empty box that starts last among those whose braces close."""
    stack: list[tuple[int, int] | None] = []
    latest, best = -1, None
    for match in _BOX.finditer(text):
        if match["open"]:
            stack.append((match.start(), match.end()))
        elif match["brace"] == "{":
            stack.append(None)
        elif match["token"]:
            latest, best = match.start(), (match.end(), match["token"].rstrip(".,;:)"))
        elif match["brace"] and stack:
            opened = stack.pop()
            # Outer boxes close later but start earlier; skipping them before slicing keeps nested boxes linear.
            if opened is not None and opened[0] > latest:
                content = text[opened[1] : match.start()].strip()
                if content:
                    latest, best = opened[0], (match.end(), content)
    return best


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


def last_number(text: str) -> str | None:
    """The last number of a text as it is written there, without a currency sign."""
    last = None
    for match in _NUMBER.finditer(text):
        last = match
    return None if last is None else re.sub(r"\\?\$", "", last[0]).replace("\u2212", "-").strip()


def _marked(text: str) -> str | None:
    box, tag = last_box(text), last_tag(text)
    if tag is None or (box is not None and box[0] > tag[0]):
        return None if box is None else box[1]
    inner = last_box(tag[1])
    return tag[1] if inner is None else inner[1]
