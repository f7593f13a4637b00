r"""Reads factors: numbers, letters, brackets, commands, and what stands behind them (powers, subscripts, `!`, `%`)."""

from fractions import Fraction

from igrpo_jax.rewards.number import in_base
from igrpo_jax.rewards.reading.commands import command
from igrpo_jax.rewards.reading.cursor import Cursor
from igrpo_jax.rewards.reading.nodes import Node, ReadError, letter, negative, number
from igrpo_jax.rewards.reading.tokens import SHORT_WORD

_MAX_EXPONENT = 1000
_MAX_BEHIND = 20
_CLOSING = {"(": (")", "]"), "[": ("]", ")")}
_FUNCTION_LETTERS = set("fghFG")


def factor(cursor: Cursor) -> Node:
    """One factor with everything behind it."""
    node = primary(cursor)
    for _ in range(_MAX_BEHIND):
        if cursor.text == "^":
            cursor.take()
            node = _power(cursor, node)
        elif cursor.text == "_":
            cursor.take()
            node = _subscripted(node, cursor.raw())
        elif cursor.accept("'"):
            node = _primed(node)
        elif cursor.accept("!"):
            node = Node("call", (node,), "double factorial" if cursor.accept("!") else "factorial")
        elif cursor.accept("%"):
            node = Node("product", (node, number(Fraction(1, 100))))
        elif node.kind == "name" and cursor.text == "(" and _is_application(cursor, node):
            cursor.take()
            with cursor.inside():
                node = Node("call", _items(cursor.statement(cursor)), f"function {node.value}")
            cursor.expect(")")
        else:
            return node
    raise ReadError("nested too deeply")


def primary(cursor: Cursor) -> Node:
    """One factor with nothing behind it."""
    kind, text = cursor.kind, cursor.take()
    if kind == "number":
        return _number(text)
    if kind == "word":
        run = cursor.tokens[cursor.place - 1].run
        if run.startswith(text) and ((len(run) >= 3 and run.isupper()) or SHORT_WORD.fullmatch(run)):
            for _ in run[1:]:  # a word or a figure, of which an anagram is another one
                cursor.take()
            return Node("name", (), run)
        if len(run) >= 3:
            cursor.runs.add(run)
        return letter(text)
    if kind == "command":
        if text == r"\{":
            return _set(cursor)
        if text == r"\langle":
            with cursor.inside():
                found = cursor.statement(cursor)
            cursor.expect(r"\rangle")
            return Node("group", _items(found), "<>")
        with cursor.deeper():
            return command(cursor, text)
    if text in _CLOSING:
        return _bracket(cursor, text)
    if text == "{":
        return _brace(cursor)
    if text == "|":
        with cursor.inside(bar_ends=True):
            found = cursor.statement(cursor)
        cursor.expect("|")
        return Node("call", (found,), "abs")
    raise ReadError(f"{text!r} is out of place")


def _number(text: str) -> Node:
    mantissa, _, exponent = text.lower().partition("e")
    if abs(int(exponent or 0)) > _MAX_EXPONENT:
        raise ReadError("a number too large")
    value = Fraction(mantissa.rstrip(".")) * Fraction(10) ** int(exponent or 0)
    return Node("decimal" if "." in mantissa or exponent else "number", (), value)


def _items(node: Node) -> tuple[Node, ...]:
    return node.args if node.kind == "list" else (node,)


def _bracket(cursor: Cursor, opening: str) -> Node:
    if cursor.text in (")", "]"):
        raise ReadError("empty brackets")
    with cursor.inside():
        found = cursor.statement(cursor)
    closing = cursor.expect(*_CLOSING[opening])
    if found.kind == "list":
        return Node("group", found.args, opening + closing)
    if (opening, closing) in (("(", "]"), ("[", ")")):
        raise ReadError("brackets that do not match")
    return found


def _brace(cursor: Cursor) -> Node:
    if cursor.accept("}"):
        raise ReadError("empty braces")
    with cursor.inside():
        found = cursor.statement(cursor)
        if cursor.accept(r"\choose"):
            found = Node("call", (found, cursor.statement(cursor)), "binom")
    cursor.expect("}")
    return found


def _set(cursor: Cursor) -> Node:
    if cursor.accept(r"\}"):
        return Node("set")
    with cursor.inside(in_set=True):
        found = cursor.statement(cursor)
    if cursor.accept("|", ":", r"\mid"):
        with cursor.inside():
            conditions = _items(cursor.statement(cursor))
        cursor.expect(r"\}")
        return Node("builder", (found, *conditions))
    cursor.expect(r"\}")
    return Node("set", _items(found))


def _power(cursor: Cursor, base: Node) -> Node:
    if cursor.text in ("'", "*"):
        raise ReadError(f"{cursor.take()!r} as a power")
    place = cursor.place
    mark = cursor.raw()
    if mark in ("'", "''"):
        return _primed(base, len(mark))
    if mark == r"\circ":
        return Node("call", (base,), "degrees")
    if mark in (r"\top", "T") and base.kind == "matrix":
        return Node("call", (base,), "transpose")
    cursor.place = place
    exponent = negative(primary(cursor)) if cursor.accept("-") else primary(cursor)
    # Powers of powers stand to the right: 2^3^2 is 2^(3^2).
    if cursor.accept("^"):
        with cursor.deeper():
            exponent = _power(cursor, exponent)
    return Node("power", (base, exponent))


def _subscripted(node: Node, subscript: str) -> Node:
    if node.kind == "number" and subscript.isdecimal() and len(subscript) <= 2:
        digits, base = str(node.value), int(subscript)
        if in_base(digits, base) is not None:
            return Node("numeral", (), (digits, base))
    if node.kind in ("name", "constant", "text"):
        return Node("name", (), f"{node.value}_{subscript}")
    raise ReadError("a subscript out of place")


def _primed(node: Node, times: int = 1) -> Node:
    if node.kind not in ("name", "constant"):
        raise ReadError("a prime out of place")
    return Node("name", (), f"{node.value}" + "'" * times)


def _is_application(cursor: Cursor, node: Node) -> bool:
    """Whether brackets behind a name hold a function's argument: `f(x+1)`, `x(t)`, but not `x(x+1)`."""
    if node.value[0] in _FUNCTION_LETTERS:
        return True
    ahead = cursor.tokens[cursor.place + 1 : cursor.place + 4]
    closing = next((i for i, token in enumerate(ahead) if token.text == ")"), None)
    return closing == 1 and ahead[0].kind in ("number", "word") and ahead[0].text != node.value
