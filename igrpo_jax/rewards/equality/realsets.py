"""Sets of real numbers as intervals: brackets, inequalities, unions, what stands behind `{x | ...}`."""

import functools
from typing import Any, NamedTuple

from igrpo_jax.rewards.equality.arithmetic import context, exact, rounded
from igrpo_jax.rewards.equality.identity import has_variables, identical, number_value
from igrpo_jax.rewards.equality.lines import difference, line
from igrpo_jax.rewards.reading.nodes import Node, ReadError, negative, number, rebuild, walk

_INFINITY = Node("constant", (), "infinity")
_MINUS_INFINITY = negative(_INFINITY)
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


class End(NamedTuple):
    """Where an interval begins or ends.

    Attributes:
      place: the number, rounded, to sort by.
      after: 1 if the interval's points begin, or end, behind the number, 0 in front of it: `(a` is 1, `a)` is 0.
      node: the number itself.
    """

    place: Any
    after: int
    node: Node


Interval = tuple[End, End]


def is_set(node: Node) -> bool:
    """Whether a node says which real numbers are in a set."""
    if node.kind in ("sets", "builder") or node == Node("name", (), r"\mathbb R"):
        return True
    if node.kind == "relation":
        return any(sign in ("<", ">", "<=", ">=", "!=", r"\notin") for sign in node.value)
    if node.kind == "list":
        return node.value in ("and", "or") and all(is_set(item) for item in node.args)
    return node.kind == "group" and len(node.args) == 2 and node.value != "<>" and node.value != "()"


def same_sets(a: list[Interval], b: list[Interval]) -> bool:
    """Whether two sets have the same intervals."""
    return len(a) == len(b) and all(
        x.after == y.after and identical(x.node, y.node)
        for left, right in zip(a, b, strict=True)
        for x, y in zip(left, right, strict=True)
    )


def intervals(node: Node) -> list[Interval]:
    """The intervals of a set, in order, none touching the next.

    Raises:
      ReadError: if the node is no set of numbers that are known.
    """
    match node.kind:
        case "group" if len(node.args) == 2 and node.value != "<>":
            found = _interval(node.args[0], node.args[1], node.value[0] == "(", node.value[1] == ")")
            if not found:
                raise ReadError("an interval that ends before it begins")
            return found
        case "set":
            return _union([_interval(item, item, False, False) for item in node.args])
        case "name" if node.value == r"\mathbb R":
            return _everything()
        case "sets":
            left, right = intervals(node.args[0]), intervals(node.args[1])
            if node.value == "cup":
                return _union([left, right])
            return _intersection(left, right if node.value == "cap" else _complement(right))
        case "builder":
            return _builder(node)
        case "relation":
            return _chain(node)
        case "list" if node.value == "or":
            return _union([intervals(item) for item in node.args])
        case "list":
            return functools.reduce(_intersection, (intervals(item) for item in node.args))
    raise ReadError(f"a {node.kind} is no set of numbers")


def variable(node: Node) -> str | None:
    """The name of the one variable that a relation or list of them is about, None if there is none."""
    node = rebuild(node, _as_name)
    names = {part.value for part in walk(node) if part.kind == "name" and not part.value.startswith(r"\mathbb")}
    return names.pop() if len(names) == 1 else None


def _as_name(node: Node) -> Node | None:
    """A function of which nothing is known as a variable of its own."""
    if node.kind != "call" or not node.value.startswith("function "):
        return None
    return Node("name", (), f"{node.value} {node.args}")


def _everything() -> list[Interval]:
    return _interval(_MINUS_INFINITY, _INFINITY, True, True)


def _end(node: Node, after: int) -> End:
    value = number_value(node)
    if value is None:
        raise ReadError("an interval without a real number at its end")
    return End(rounded(value, context(60)), after, node)


def _interval(first: Node, last: Node, left_open: bool, right_open: bool) -> list[Interval]:
    left, right = _end(first, int(left_open)), _end(last, int(not right_open))
    return [(left, right)] if left[:2] < right[:2] else []


def _union(sets: list[list[Interval]]) -> list[Interval]:
    found: list[Interval] = []
    for left, right in sorted((interval for each in sets for interval in each), key=lambda it: (it[0][:2], it[1][:2])):
        if found and left[:2] <= found[-1][1][:2]:
            if right[:2] > found[-1][1][:2]:
                found[-1] = (found[-1][0], right)
        else:
            found.append((left, right))
    return found


def _intersection(a: list[Interval], b: list[Interval]) -> list[Interval]:
    found = []
    for left in a:
        for right in b:
            start = max(left[0], right[0], key=lambda end: end[:2])
            stop = min(left[1], right[1], key=lambda end: end[:2])
            if start[:2] < stop[:2]:
                found.append((start, stop))
    return _union([found])


def _complement(a: list[Interval]) -> list[Interval]:
    left, right = _everything()[0]
    starts = [left, *(interval[1] for interval in a)]
    stops = [*(interval[0] for interval in a), right]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if start[:2] < stop[:2]]


def _builder(node: Node) -> list[Interval]:
    head, *conditions = node.args
    sets = [intervals(condition) for condition in conditions]
    name = head.args[0] if head.kind == "relation" and head.value == (r"\in",) else head
    if head.kind == "relation" and head.args[1].value != r"\mathbb R":
        raise ReadError("a set of other numbers than the real ones")
    if name.kind != "name" or any(variable(condition) != name.value for condition in conditions):
        raise ReadError("a set without a condition on its variable")
    return functools.reduce(_intersection, sets)


def _chain(node: Node) -> list[Interval]:
    """The numbers that satisfy a chain of inequalities in one variable, each linear in it."""
    node = rebuild(node, _as_name)
    name = variable(node)
    if name is None:
        raise ReadError("an inequality in several variables")
    sets = []
    for left, sign, right in zip(node.args, node.value, node.args[1:], strict=False):
        if sign in (r"\in", r"\notin"):
            if left != Node("name", (), name):
                raise ReadError("a set of expressions")
            members = intervals(right)
            sets.append(members if sign == r"\in" else _complement(members))
        else:
            sets.append(_linear(name, left, sign, right))
    return functools.reduce(_intersection, sets)


def _linear(name: str, left: Node, sign: str, right: Node) -> list[Interval]:
    place = Node("name", (), name)
    if left.kind == "call" and left.value == "abs" and not has_variables(right):
        return _absolute(left.args[0], sign, right)
    if right.kind == "call" and right.value == "abs" and not has_variables(left):
        return _absolute(right.args[0], _FLIPPED.get(sign, sign), left)
    if left == place and not has_variables(right):
        bound = right
    elif right == place and not has_variables(left):
        bound, sign = left, _FLIPPED.get(sign, sign)
    else:
        bound, sign = _solved(name, left, sign, right)
    match sign:
        case "<" | "<=":
            return _interval(_MINUS_INFINITY, bound, True, sign == "<")
        case ">" | ">=":
            return _interval(bound, _INFINITY, sign == ">", True)
        case "=":
            return _interval(bound, bound, False, False)
        case "!=":
            return _complement(_interval(bound, bound, False, False))
    raise ReadError(f"{sign} is no inequality")


def _absolute(inner: Node, sign: str, bound: Node) -> list[Interval]:
    """Where the absolute value of an expression has a relation to a number."""
    above = Node("relation", (inner, bound), (sign,))
    below = Node("relation", (inner, negative(bound)), (_FLIPPED[sign],))
    return (_intersection if sign in ("<", "<=", "!=") else lambda a, b: _union([a, b]))(_chain(above), _chain(below))


def _solved(name: str, left: Node, sign: str, right: Node) -> tuple[Node, str]:
    """The bound and the sign of an inequality that is linear in its variable."""
    found = line(difference(left, right), name, 0, 60)
    if found is None or not all(map(exact, found)):
        raise ReadError("an inequality that is not linear with rational numbers")
    zero, slope = found
    return number(zero), sign if slope > 0 else _FLIPPED[sign]
