"""The tree that an answer is read into."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple


class ReadError(ValueError):
    """The text is no mathematics that can be read, or has no value."""


class TooLarge(ReadError):
    """Working it out would take more digits, terms or time than any answer needs."""


class Node(NamedTuple):
    """One piece of an answer.

    | kind | args | value |
    |---|---|---|
    | `number` | | its `Fraction` |
    | `decimal` | | its `Fraction`; it may have been rounded |
    | `numeral` | | digits and base, of `204_5` |
    | `constant` | | `pi`, `e`, `i`, `infinity` |
    | `name` | | a variable's, with accents and subscript |
    | `text` | | words |
    | `sum`, `product` | terms, factors | |
    | `power` | base, exponent | |
    | `sign` | a term | `+-` or `-+`: the term with either sign |
    | `call` | arguments | the function's name |
    | `series` | variable, first, last, term | `sum` or `prod` |
    | `matrix` | entries, row by row | rows and columns |
    | `group` | two or more items | the brackets: `()`, `[]`, `(]`, `[)`, `<>` |
    | `set` | elements | |
    | `builder` | variable, conditions | |
    | `list` | two or more items | what separates them: `,`, `and`, `or` |
    | `relation` | sides | the signs between them |
    | `sets` | operands | `cup`, `cap`, `minus` |
    """

    kind: str
    args: tuple["Node", ...] = ()
    value: Any = None


def number(value: int | Fraction) -> Node:
    """An exact number."""
    return Node("number", (), Fraction(value))


MINUS_ONE, HALF = number(-1), number(Fraction(1, 2))


def negative(node: Node) -> Node:
    """Minus the node."""
    return number(-node.value) if node.kind == "number" else Node("product", (MINUS_ONE, node))


def inverse(node: Node) -> Node:
    """One over the node."""
    return Node("power", (node, MINUS_ONE))


def letter(name: str) -> Node:
    """A variable, or the constant that has this letter."""
    return Node("constant", (), name) if name in ("e", "i") else Node("name", (), name)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(top.args)


def rebuild(node: Node, change: Callable[[Node], Node | None]) -> Node:
    """The tree with every node replaced for which `change` has a replacement, from the top."""
    new = change(node)
    if new is not None:
        return new
    return node._replace(args=tuple(rebuild(child, change) for child in node.args)) if node.args else node
