r"""Brings an answer into one spelling: no math delimiters, no layout commands, numbers without gaps."""

import re

from igrpo_jax.rewards.reading.grammar import MAX_LENGTH
from igrpo_jax.rewards.reading.spelling import ascii_text
from igrpo_jax.rewards.reading.units import Quantity, quantity

__all__ = ["MAX_LENGTH", "Quantity", "clean", "plain", "quantity"]

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
# One pass, so that the row break `\\\\` is never taken for a backslash and the blank `\\ `.
_LAYOUT = re.compile(
    r"(?P<row>\\\\)(?:\[[0-9.a-z ]*\])?"
    r"|(?P<gap>\\[ ;:>]|~|\\q?quad|\\(?:thinspace|enspace|hfill|newline)(?![A-Za-z])|\\hspace\*?\{[^{}]*\})"
    r"|\\(?:left|right)\s*\.(?![0-9])"
    r"|\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut|large|Large"
    r"|huge|normalsize|small|bf|it|rm|boldsymbol|bm|underline|mathbin|mathrel|mathopen|mathclose|phantom\{[^{}]*\})"
    r"(?![A-Za-z])\s*"
    r"|\\(?:textcolor|color|colorbox)\s*\{[^{}]*\}\s*"
    r"|\\[!,]"
)
_WHOLE_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}")
_JOIN = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{\s*,?\s*(and|or)\s*\}")
_PERCENT = re.compile(
    r"(?<=[0-9})])\s*(?:\\(?:text|textrm|mathrm|mbox)\s*\{\s*(?:percent|per cent|percentage|pct)\.?\s*\}"
    r"|(?:percentage|percent|per cent|pct)(?![A-Za-z]))",
    re.IGNORECASE,
)
_MODULE = re.compile(r"(?<![A-Za-z.])(?:np|numpy|math|sympy)\.(?=[a-z])")
_GROUPS = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2})((?: [0-9]{3})+)(?![0-9])(?! [0-9])")
_LEAD = re.compile(
    r"(?:so |thus |hence |therefore,? )?(?:the |my |our )?(?:final |correct )?answer"
    r"(?: is| would be|\s*:|\s*=)+\s*:?\s*",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    r"""Strips delimiters, layout and `the answer is`: `$\left(\dfrac{1}{2}\right)$.` becomes `(\frac{1}{2})`."""
    text = ascii_text(text)
    if "begin" not in text:  # escaped twice
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)
    text = re.sub(r"(?<=[0-9]),\\!\s*(?=[0-9]{3})", "", text.replace("{:}", ":"))
    text = re.sub(r"(?<=[0-9])\s*\{\s*,\s*\}\s*(?=[0-9])", ",", text).replace("{,}", ",")
    text = re.sub(r"(?<=[0-9])\\,(?=[0-9])(?![0-9]{3}(?![0-9]))", " ", text)
    text = _LAYOUT.sub(lambda match: match["row"] or " " * bool(match["gap"]), text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text).replace(r"\varnothing", r"\emptyset")
    text = _MODULE.sub("", re.sub(r"(?<![A-Za-z])np\.log(?![0-9a-z])", r"\\ln", text))
    text = _PERCENT.sub("%", _JOIN.sub(r" \1 ", text).replace(r"\%", "%"))
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?<=[^-\s])\s*\\\$", " ", text)  # a price inside a calculation
    for _ in range(3):
        text = _outer(text.strip().rstrip(".,;:").strip())
    return _GROUPS.sub(lambda match: match[0].replace(" ", ""), text)


def _outer(text: str) -> str:
    """Without what stands around all of it."""
    for left, right in _DELIMITERS:
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            inner = text[len(left) : -len(right)]
            text = inner if left not in inner else text
    if len(re.findall(r"(?<!\\)\$", text)) % 2 == 0:
        text = re.sub(r"(?<!\\)\$", "", text)
    whole = _WHOLE_TEXT.fullmatch(text.strip())
    text = whole[1] if whole else text
    if re.fullmatch(r"\{[^{},;]*\}", text.strip()) and r"\choose" not in text:
        text = text.strip()[1:-1]
    lead = _LEAD.match(text.strip())
    return text.strip()[lead.end() :] if lead else text.strip()


def plain(body: str) -> str:
    r"""The body for comparing letter by letter: `\text{}` unpacked, blanks kept only between two words or digits."""
    text = _WHOLE_TEXT.sub(r"\1", body)
    text = re.sub(r" (?![0-9A-Za-z])|(?<![0-9A-Za-z]) ", "", text)
    option = re.fullmatch(r"\(([A-Za-z])\)", text)
    return option[1] if option else text
