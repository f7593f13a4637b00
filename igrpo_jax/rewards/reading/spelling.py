r"""One spelling for characters and numbers: other alphabets' digits, marks of no width, groups of thousands."""

import re
import unicodedata

_NO_WIDTH = dict.fromkeys(
    [0xAD, 0x61C, 0x180E, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]
)
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x66B: ".", 0x66C: ","}
_CHARACTERS = str.maketrans(
    {
        "\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-",
        "\u00d7": r"\times ", "\u22c5": r"\cdot ", "\u00b7": r"\cdot ", "\u00f7": "/", "\u2215": "/", "\u2044": "/",
        "\u03c0": r"\pi ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u03b3": r"\gamma ", "\u03b8": r"\theta ",
        "\u03bb": r"\lambda ", "\u03c9": r"\omega ", "\u03c6": r"\phi ", "\u03b4": r"\delta ", "\u03bc": r"\mu ",
        "\u03c3": r"\sigma ", "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ",
        "\u2248": r"\approx ", "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ",
        "\u2216": r"\setminus ", "\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}", "\u2115": r"\mathbb{N}",
        "\u211a": r"\mathbb{Q}", "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u00b0": r"^\circ ", "\u2220": r"\angle ",
        "\u25b3": r"\triangle ", "\u2018": "'", "\u2019": "'", "\u2032": "'",
        "\u060c": ",", "\u3001": ",", "\uff61": ".", "\u3002": ".", "\u00a0": " ", "\u202f": " ", "\u3000": " ",
        **{chr(code): " " for code in range(0x2000, 0x200B)},
    }
)  # fmt: skip
_RAISED = str.maketrans(
    dict(zip("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207f", "0123456789-n", strict=True))
)
_LOWERED = str.maketrans({chr(0x2080 + digit): str(digit) for digit in range(10)})
_FRACTION = re.compile(r"([0-9]?)([\u00bc-\u00be\u2150-\u215e])")
_ROOT = re.compile(r"\u221a\s*(?:\(([^()]*)\)|([0-9]+|[A-Za-z]))")


def ascii_text(text: str) -> str:
    r"""The text with mathematical characters as LaTeX, digits of all alphabets as 0 to 9, and nothing invisible.

    >>> ascii_text("\uff11\u200b\u0662 \u2264 \u221a5")
    '12 \\le  \\sqrt{5}'
    """
    if text.isascii():
        return text
    text = text.translate(_NO_WIDTH).translate(_FULL_WIDTH).translate(_CHARACTERS)
    text = _FRACTION.sub(_as_fraction, text)
    text = re.sub(
        "[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b\u207f]+", lambda m: f"^{{{m[0].translate(_RAISED)}}}", text
    )
    text = re.sub("[\u2080-\u2089]+", lambda m: f"_{{{m[0].translate(_LOWERED)}}}", text)
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    return "".join(map(_ascii_character, text))


def _ascii_character(character: str) -> str:
    if character.isascii():
        return character
    digit = unicodedata.decimal(character, None)
    return character if digit is None else str(digit)


def _as_fraction(match: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", match[2]).partition("\u2044")
    return rf"{match[1]}\frac{{{top}}}{{{bottom}}}"


def ascii_digits(text: str) -> str:
    """The text with digits of all alphabets as 0 to 9, full-width characters as plain ones, and nothing invisible."""
    if text.isascii():
        return text
    text = text.translate(_NO_WIDTH).translate(_FULL_WIDTH)
    digits = {c: str(unicodedata.decimal(c)) for c in set(text) if not c.isascii() and c.isdecimal()}
    return text.translate(str.maketrans(digits)) if digits else text
