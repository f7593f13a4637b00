r"""Reads a text into a tree, from lists and relations down to products; `factors` reads what those are made of."""

from collections.abc import Collection

from igrpo_jax.rewards.reading.cursor import Cursor
from igrpo_jax.rewards.reading.factors import factor, primary
from igrpo_jax.rewards.reading.nodes import Node, ReadError, inverse, negative, number
from igrpo_jax.rewards.reading.tokens import tokenize

MAX_LENGTH = 1000
"""Characters of the longest text that is read."""

_RELATIONS = {"=", "<", ">", "<=", ">=", "!=", r"\in", r"\notin", r"\approx", r"\equiv", r"\subset", r"\subseteq"}
_SETS = {r"\cup": "cup", r"\cap": "cap", r"\setminus": "minus"}
_SEPARATORS = (",", "and", "or")
_SIGNS = ("+", "-", r"\pm", r"\mp")


def read(text: str, words: Collection[str] | None = None) -> Node:
    r"""Reads an answer, LaTeX or plain.

    Args:
      text: cleaned, without unit.
      words: runs of three or more letters that may be read as products of letters; None allows all.

    Raises:
      ReadError: for what is too long, nested too deeply, or no mathematics that the grammar knows.

    >>> read(r"\frac{1}{2}x").kind
    'product'
    """
    tree, runs = _read(text)
    if words is not None and (strange := runs - set(words)):
        raise ReadError(f"{min(strange)!r} is no mathematics")
    return tree


def letter_runs(text: str) -> set[str]:
    """The runs of three or more letters in a text that are read as products of letters.

    Raises:
      ReadError: as `read` does.
    """
    return _read(text)[1]


def _read(text: str) -> tuple[Node, set[str]]:
    if len(text) > MAX_LENGTH:
        raise ReadError(f"longer than {MAX_LENGTH} characters")
    cursor = Cursor(tokenize(text), statement, product, factor, primary)
    tree = statement(cursor)
    if cursor.kind != "end":
        raise ReadError(f"{cursor.text!r} is out of place")
    return tree, cursor.runs


def statement(cursor: Cursor) -> Node:
    """Lists with semicolons between them, or one list."""
    parts = [comma_list(cursor)]
    while cursor.accept(";"):
        if cursor.kind == "end":
            break
        parts.append(comma_list(cursor))
    return parts[0] if len(parts) == 1 else Node("list", tuple(parts), ",")


def comma_list(cursor: Cursor) -> Node:
    """Elements with commas, `and` or `or` between them; one alone is itself."""
    items, separator = [element(cursor)], ","
    while cursor.text in _SEPARATORS:
        while cursor.text in _SEPARATORS:  # `, and`
            found = cursor.take()
            separator = found if found in ("and", "or") else separator
        if cursor.kind in ("end", "row") or cursor.text == "&":
            break
        items.append(element(cursor))
    return items[0] if len(items) == 1 else Node("list", tuple(items), separator)


def element(cursor: Cursor) -> Node:
    """A chain of relations, or what stands on one side of one."""
    sides, signs = [sets(cursor)], []
    while cursor.text in _RELATIONS:
        signs.append(cursor.take())
        sides.append(sets(cursor))
    return Node("relation", tuple(sides), tuple(signs)) if signs else sides[0]


def sets(cursor: Cursor) -> Node:
    """Sets joined, cut or taken away, or a sum."""
    left = total(cursor)
    while cursor.text in _SETS:
        operator = _SETS[cursor.take()]
        left = Node("sets", (left, total(cursor)), operator)
    return left


def total(cursor: Cursor) -> Node:
    """Terms with signs between them."""
    terms = []
    while True:
        sign = cursor.take() if cursor.text in _SIGNS else "+"
        if sign in ("+", "-"):
            while cursor.text in ("+", "-"):
                sign = "-" if (sign == "-") != (cursor.take() == "-") else "+"
        term = product(cursor)
        if sign == "-":
            term = negative(term)
        elif sign != "+":
            term = Node("sign", (term,), "+-" if sign == r"\pm" else "-+")
        terms.append(term)
        if cursor.text not in _SIGNS:
            return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))


def product(cursor: Cursor) -> Node:
    """Factors with or without a sign between them; those without bind more tightly than a division."""
    factors = [beside(cursor)]
    while cursor.text in ("*", "/", ":") and not (cursor.text == ":" and cursor.in_set):
        whole = cursor.tokens[cursor.place - 1].kind == "number"
        divides = cursor.take() != "*"
        minus = False
        while cursor.text in ("+", "-"):
            minus ^= cursor.take() == "-"
        # With a blank behind it a fraction is one: `1/2 x` is a half of x, but `1/2x` is 1 over 2x.
        fraction = divides and whole and cursor.kind == "number" and cursor.tokens[cursor.place + 1].spaced
        found = factor(cursor) if fraction else beside(cursor)
        found = negative(found) if minus else found
        factors.append(inverse(found) if divides else found)
        if fraction and cursor.starts_factor():
            factors.append(beside(cursor))
    return factors[0] if len(factors) == 1 else Node("product", tuple(factors))


def beside(cursor: Cursor) -> Node:
    """Factors side by side: `2x`, or a mixed number."""
    factors, kinds = [factor(cursor)], [cursor.tokens[cursor.place - 1].kind]
    while cursor.starts_factor():
        if cursor.kind == "number" and kinds[-1] in ("number", "word"):
            raise ReadError("a number beside a number or a letter")
        fraction = cursor.text == r"\frac"
        found = factor(cursor)
        if len(factors) == 1 and fraction and (mixed := _mixed(factors[0], found)):
            factors = [mixed]
        else:
            factors.append(found)
        kinds.append(cursor.tokens[cursor.place - 1].kind)
    return factors[0] if len(factors) == 1 else Node("product", tuple(factors))


def _mixed(whole: Node, fraction: Node) -> Node | None:
    """The mixed number of a whole number and a fraction of positive whole numbers; None if they are none."""
    if fraction.kind != "product" or len(fraction.args) != 2 or fraction.args[1].kind != "power":
        return None
    parts = (whole, fraction.args[0], fraction.args[1].args[0])
    if any(part.kind != "number" or part.value.denominator != 1 or part.value <= 0 for part in parts):
        return None
    return number(parts[0].value + parts[1].value / parts[2].value)
