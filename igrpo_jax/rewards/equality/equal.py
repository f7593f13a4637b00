"""Whether two trees are the same answer."""

from collections.abc import Sequence

from igrpo_jax.rewards.equality.equations import same_equations, same_inequalities
from igrpo_jax.rewards.equality.identity import identical
from igrpo_jax.rewards.equality.meaning import meaning
from igrpo_jax.rewards.equality.realsets import intervals, is_set, same_sets, variable
from igrpo_jax.rewards.reading.nodes import Node, ReadError

_MAX_ITEMS = 50
_NAMED = ("assignment", "equation")
_MANY = ("list", "set", "group")


def equal(answer: Node, gold: Node) -> bool:
    """Whether an answer is the gold answer; the rules are in docs/grading.md.

    Raises:
      ReadError: if one has no value, or is too large to be worked out.
    """
    return _same(meaning(answer), meaning(gold))


def _same(a: Node, b: Node) -> bool:
    if a.kind in _NAMED or b.kind in _NAMED:
        return _same_named(a, b)
    if a.kind == "text" and b.kind == "text":
        return a.value.casefold() == b.value.casefold()
    if is_set(a) or is_set(b):
        return _same_real(a, b)
    if a.kind in _MANY or b.kind in _MANY:
        return _same_many(a, b)
    if a.kind == "numeral" or b.kind == "numeral":
        return _same_numeral(a, b)
    return identical(a, b)


def _same_named(a: Node, b: Node) -> bool:
    if a.kind in _NAMED and b.kind in _NAMED:
        if a.kind == b.kind == "assignment" and a.args[0] == b.args[0]:
            return _same(a.args[1], b.args[1])
        return same_equations(a.args, b.args)
    if a.kind == "assignment":
        return _same(a.args[1], b)
    return b.kind == "assignment" and _same(a, b.args[1])


def _same_numeral(a: Node, b: Node) -> bool:
    if a.kind == b.kind:
        return a.value == b.value
    if a.kind == "numeral":  # a number is the gold answer, so the base does not matter but the value does
        return b.kind == "number" and int(*a.value) == b.value
    return a.kind == "number" and str(a.value) == b.value[0]  # the question says which base


def _same_real(a: Node, b: Node) -> bool:
    if a.kind == b.kind == "relation" and variable(a) != variable(b):
        return False
    try:
        left, right = intervals(a), intervals(b)
    except ReadError:
        return _same_shape(a, b)
    return same_sets(left, right)


def _same_shape(a: Node, b: Node) -> bool:
    """Sets that are no intervals of numbers, part by part."""
    if a.kind != b.kind or len(a.args) != len(b.args):
        return False
    if a.kind == "relation" and len(a.args) == 2:
        return same_inequalities(a, b)
    if a.value != b.value:
        return False
    if a.kind == "sets" and a.value == "minus":
        return _in_order(a.args, b.args)
    return _in_any_order(a.args, b.args) if a.kind in ("sets", "list") else _in_order(a.args, b.args)


def _same_many(a: Node, b: Node) -> bool:
    if a.kind == b.kind == "group":  # a vector may be written as a point
        return (a.value == b.value or {a.value, b.value} == {"()", "<>"}) and _in_order(a.args, b.args)
    if a.kind == b.kind:
        return _in_any_order(_points_once(a.args), _points_once(b.args))
    kinds = {a.kind, b.kind}
    if kinds == {"list", "set"}:
        return _in_any_order(a.args, b.args)
    if kinds == {"list", "group"}:
        if b.kind == "list" and not all(item.kind == "assignment" for item in b.args):
            return False  # two numbers are no point
        return (a.value == "()" or b.value == "()") and _in_order(_values(a), _values(b))
    if "group" in kinds and not kinds & {"list", "set"}:
        return identical(a, b)
    return False


def _points_once(items: Sequence[Node]) -> Sequence[Node]:
    """A point that is named twice is one; a number, such as a prime factor, is two."""
    return list(dict.fromkeys(items)) if all(item.kind == "group" for item in items) else items


def _values(node: Node) -> Sequence[Node]:
    return [item.args[1] if item.kind == "assignment" else item for item in node.args]


def _in_order(a: Sequence[Node], b: Sequence[Node]) -> bool:
    return len(a) == len(b) and all(_same(meaning(x), meaning(y)) for x, y in zip(a, b, strict=True))


def _in_any_order(a: Sequence[Node], b: Sequence[Node]) -> bool:
    """Whether there is a partner for each; names that only one side has go by the order in which they stand."""
    if len(a) != len(b):
        return False
    if len(a) > _MAX_ITEMS:
        return list(a) == list(b)
    named = [[item.kind == "assignment" for item in items] for items in (a, b)]
    if named[0] != named[1] and (all(named[0]) or all(named[1])):
        return _in_order(_values(Node("list", tuple(a))), _values(Node("list", tuple(b))))
    left = list(b)
    for item in a:
        partner = next((i for i, other in enumerate(left) if _same(meaning(item), meaning(other))), None)
        if partner is None:
            return False
        del left[partner]
    return True
