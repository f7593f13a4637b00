"""What an answer says: which name gets which value, which values a sign stands for, what is an equation."""

from collections.abc import Iterator
from typing import Any

from igrpo_jax.rewards.equality.arithmetic import context, rounded
from igrpo_jax.rewards.equality.functions import FUNCTIONS, MATRIX_FUNCTIONS
from igrpo_jax.rewards.equality.identity import has_variables, identical, names, number_value
from igrpo_jax.rewards.reading.commands import ANGLE_FUNCTIONS
from igrpo_jax.rewards.reading.nodes import Node, ReadError, negative, rebuild, walk

_MAX_SIGNS = 3
_UNKNOWNS = {"x", "y", "t", "n"}
"""Letters of which a function is something to be solved for: `|x| = 5` has no value, `|AB| = 5` has one."""

_SETS = {"set", "group", "sets", "builder", "name"}
_QUANTITIES = {"abs", "norm", "det", "gcd", "lcm", "max", "min", "sin", "cos", "tan"}
_WORKED_OUT = (FUNCTIONS.keys() | MATRIX_FUNCTIONS.keys()) - _QUANTITIES
_MAX_DECIMALS = 30


def meaning(node: Node) -> Node:
    """The tree with `assignment` (name, value) and `equation` (left, right) for relations with `=`, and no `sign`.

    An expression with a sign for both becomes the list of its values. Words in front of `=` say nothing that counts,
    and neither do steps of a calculation in front of its result, as long as they are true. A degree is a unit, but for
    the angles of functions.

    Raises:
      ReadError: for a chain of equations, sides that are not equal, or too many signs.
    """
    node = rebuild(node, _without_degrees)
    if node.kind != "list":
        found = [_element(variant) for variant in _variants(node)]
    else:
        found = [_element(variant) for item in node.args for variant in _variants(item)]
    if len(found) == 1:
        return found[0]
    separator = node.value if node.kind == "list" else ","
    return Node("list", tuple(_without_shared_name(found)), separator)


def _without_shared_name(items: list[Node]) -> list[Node]:
    """`x = 1, x = 2` and `x = 1, 2` are values of one name; `x = 1, y = 2` are not."""
    names = [item.args[0] if item.kind == "assignment" else None for item in items]
    first = names[0]
    if first is None or any(item.kind in ("equation", "relation") for item in items):
        return items
    if all(name == first for name in names) or all(name is None for name in names[1:]):
        return [item.args[1] if item.kind == "assignment" else item for item in items]
    return items


def _variants(node: Node) -> Iterator[Node]:
    r"""The expressions that one with `\pm` stands for: with `\mp` in it two, else every choice of signs."""
    signs = [part for part in walk(node) if part.kind == "sign"]
    if not signs or node.kind == "set":
        yield _spread(node) if node.kind == "set" else node
        return
    together = any(part.value == "-+" for part in signs)
    if len(signs) > _MAX_SIGNS and not together:
        raise ReadError("too many signs for both")
    choices = [(False,) * len(signs), (True,) * len(signs)]
    if not together:
        choices = [tuple(bool(number >> i & 1) for i in range(len(signs))) for number in range(2 ** len(signs))]
    for choice in choices:
        left = list(choice)

        def change(part: Node, left: list[bool] = left) -> Node | None:
            if part.kind != "sign":
                return None
            minus = left.pop(0) != (part.value == "-+")
            inner = rebuild(part.args[0], change)
            return negative(inner) if minus else inner

        yield rebuild(node, change)


def _spread(node: Node) -> Node:
    return node._replace(args=tuple(variant for item in node.args for variant in _variants(item)))


def _without_degrees(node: Node) -> Node | None:
    if node.kind != "call" or node.value not in (*ANGLE_FUNCTIONS, "degrees"):
        return None
    return rebuild(node.args[0], _without_degrees) if node.value == "degrees" else node


def _element(node: Node) -> Node:
    if node.kind != "relation":
        return node
    if node.value == (r"\in",) and _is_name(node.args[0]) and node.args[1].kind in _SETS:
        return Node("assignment", node.args)
    if not set(node.value) <= {"=", r"\approx", r"\equiv"}:
        return node
    sides = list(node.args)
    if r"\approx" in node.value:  # what stands in front is exact
        front = max(node.value.index(r"\approx") + 1, 1 + (len(sides) > 1 and _is_name(sides[0])))
        if not all(_is_near(side, sides[front - 1]) for side in sides[front:]):
            raise ReadError("sides that are not about the same")
        sides = sides[:front]
    while len(sides) > 1 and _is_words(sides[0]):
        del sides[0]
    sides = [_element(side) for side in sides]
    _check(sides)
    if len(sides) == 1:
        return sides[0]
    if _is_name(sides[0]):
        return Node("assignment", (sides[0], sides[-1]))
    if len(sides) == 2 and _is_name(sides[1]) and not has_variables(sides[0]):
        return Node("assignment", (sides[1], sides[0]))
    if all(_is_name(side) or not has_variables(side) for side in sides):
        return sides[-1]
    if len(sides) == 2:
        return Node("equation", tuple(sides))
    raise ReadError("a chain of equations")


def _check(sides: list[Node]) -> None:
    """Refuses a chain in which sides of the same variables, or of none, differ: such an equation is false.

    Where no side is a name, sides with variables are an equation to be solved, which may be true for some values.
    """
    stated = [side for side in sides if not _is_name(side)]
    before: dict[frozenset[str], Node] = {}
    for side in stated:
        variables = frozenset(names(side))
        other = before.setdefault(variables, side)
        if other is side or (variables and len(stated) == len(sides)):
            continue
        if not (identical(other, side) or _rounds(other, side) or _rounds(side, other)):
            raise ReadError("sides that are not equal")


def _rounds(number: Node, decimal: Node) -> bool:
    """Whether a decimal is a number rounded to its last place, or cut there."""
    digits = decimal.args[-1] if decimal.kind == "product" and len(decimal.args) == 2 else decimal
    if digits.kind != "decimal":
        return False
    places = next((n for n in range(1, _MAX_DECIMALS) if (digits.value * 10**n).denominator == 1), _MAX_DECIMALS)
    pair = _reals(number, decimal)
    if pair is None:
        return False
    value, written = pair if pair[0] >= 0 else (-pair[0], -pair[1])
    last = context(60).mpf(10) ** -places
    return bool(written >= 0 and -last / 2 <= value - written < last)


def _is_near(rough: Node, number: Node) -> bool:
    """Whether a number may be written for another one behind a sign for about; what is no number may."""
    pair = _reals(rough, number)
    return pair is None or bool(abs(pair[0] - pair[1]) <= abs(pair[1]) / 10)


def _reals(*nodes: Node) -> list[Any] | None:
    """The values of real numbers, None if they are not all such."""
    values = [number_value(node) for node in nodes]
    return None if None in values else [rounded(value, context(60)) for value in values]


def _is_words(node: Node) -> bool:
    if node.kind == "text":
        return True
    return node.kind == "product" and all(part.kind == "text" for part in node.args)


def _is_name(node: Node) -> bool:
    """Whether a node names a quantity: `x`, `f(x)`, `AB`, `(x, y)`, `|AB|`, but not `2x` or `x + 3`."""
    match node.kind:
        case "name" | "text":
            return True
        case "constant":
            return node.value in ("e", "i")
        case "call":
            return node.value.startswith("function ") or (
                node.value not in _WORKED_OUT
                and all(_is_name(part) and part.value not in _UNKNOWNS for part in node.args)
            )
        case "group" | "product":
            return all(map(_is_name, node.args))
        case "power":  # of a quotient
            return node.args[1].kind == "number" and node.args[1].value == -1 and _is_name(node.args[0])
    return False
