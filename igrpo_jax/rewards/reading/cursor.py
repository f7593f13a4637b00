"""A place in the tokens of one text, and what the reader must remember there."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from igrpo_jax.rewards.reading.nodes import Node, ReadError
from igrpo_jax.rewards.reading.tokens import Token

_MAX_DEPTH = 20
_STOPS = set(
    r"\in \notin \approx \equiv \subset \subseteq \cup \cap \setminus \pm \mp \rangle \rfloor \rceil \} \mid \end "
    r"\choose \to \implies \Rightarrow \mod \bmod \pmod \dots \ldots \cdots \|".split()
)


@dataclass
class Cursor:
    """A position in tokens.

    Attributes:
      tokens: all of them, with an end token.
      statement: reads what may stand in brackets.
      product: reads one term of a sum.
      factor: reads one factor with its powers.
      primary: reads one factor without.
      place: index of the next token.
      depth: how many brackets, commands and powers are open.
      bar_ends: whether `|` ends what is being read instead of beginning an absolute value.
      in_set: whether `|` and `:` divide a set's variable from its condition.
      runs: words of three or more letters, not all capitals, that were read letter by letter.
    """

    tokens: list[Token]
    statement: Callable[["Cursor"], Node]
    product: Callable[["Cursor"], Node]
    factor: Callable[["Cursor"], Node]
    primary: Callable[["Cursor"], Node]
    place: int = 0
    depth: int = 0
    bar_ends: bool = False
    in_set: bool = False
    runs: set[str] = field(default_factory=set)

    @property
    def kind(self) -> str:
        """The next token's kind."""
        return self.tokens[self.place].kind

    @property
    def text(self) -> str:
        """The next token's text."""
        return self.tokens[self.place].text

    def take(self) -> str:
        """Goes past the next token; its text."""
        token = self.tokens[self.place]
        if token.kind == "end":
            raise ReadError("it ends too early")
        self.place += 1
        return token.text

    def accept(self, *texts: str) -> bool:
        """Goes past the next token if it is one of these."""
        if self.kind == "end" or self.text not in texts:
            return False
        self.place += 1
        return True

    def expect(self, *texts: str) -> str:
        """Goes past the next token, which must be one of these."""
        if self.text not in texts:
            raise ReadError(f"{texts[0]!r} is missing" if self.kind == "end" else f"{self.text!r} is out of place")
        return self.take()

    @contextlib.contextmanager
    def inside(self, *, bar_ends: bool = False, in_set: bool = False) -> Iterator[None]:
        """Within brackets, which change what `|` means."""
        before = self.bar_ends, self.in_set
        self.bar_ends, self.in_set = bar_ends, in_set
        with self.deeper():
            yield
        self.bar_ends, self.in_set = before

    @contextlib.contextmanager
    def deeper(self) -> Iterator[None]:
        """One expression inside another."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ReadError("nested too deeply")
        yield
        self.depth -= 1

    def raw(self) -> str:
        """The text of a group in braces, or of one token, without blanks."""
        if not self.accept("{"):
            return self.take()
        texts, depth = [], 1
        while True:
            found = self.take()
            depth += (found == "{") - (found == "}")
            if not depth:
                return "".join(texts)
            texts.append(found)

    def starts_factor(self) -> bool:
        """Whether the next token begins another factor."""
        if self.kind in ("number", "word"):
            return True
        if self.kind == "command":
            return self.text not in _STOPS
        return self.kind == "sign" and (
            self.text in "([{" or (self.text == "|" and not self.bar_ends and not self.in_set)
        )
