"""What every kind of source is reduced to: rows by index, and how a row becomes a problem."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from igrpo_jax.types import Problem

_THOUSANDS = re.compile(r"[-+]?\$?\d{1,3}(,\d{3})+(\.\d+)?")
_TAKEN_BY_REWARDS = ("prompts", "completions", "completion_ids", "ended")
_PROBED_ROWS = 32


class Rows(NamedTuple):
    """A table that is read row by row.

    Attributes:
      name: short name for metrics and messages.
      size: number of rows.
      columns: names of the top-level columns.
      read: row index to row.
      generated: True where rows are made on demand, with columns `question` and `answer` whatever the config says.
    """

    name: str
    size: int
    columns: Sequence[str]
    read: Callable[[int], Mapping[str, Any]]
    generated: bool = False


class Mapped(NamedTuple):
    """Where question and gold answer stand in a row.

    Attributes:
      question: column of the question, dotted where it is nested (`extra_info.question`, `prompt.0.content`).
      answer: column of the gold answer, likewise.
      answer_after: marker whose last occurrence the gold answer follows, None for none.
      answer_boxed: True where the gold answer is the content of the last box.
    """

    question: str
    answer: str
    answer_after: str | None
    answer_boxed: bool


def to_problem(row: Mapping[str, Any], index: int, mapped: Mapped, *, where: str) -> Problem:
    """Makes a problem of a row; its columns are all of the row's, but `answer` is the gold answer as text or None.

    A column whose name rewards need for themselves (prompts, completions, completion_ids, ended) gets an underscore
    behind it.

    Raises:
      ValueError: if question or answer is neither text nor a number.
    """
    question = _text(_lookup(row, mapped.question), mapped.question, "question", where)
    gold = _text(_lookup(row, mapped.answer), mapped.answer, "answer", where)
    columns = {f"{k}_" if k in _TAKEN_BY_REWARDS else k: v for k, v in row.items()}
    return Problem(index, question or "", columns | {"answer": _gold(gold, mapped)})


def check_columns(rows: Rows, mapped: Mapped, *, where: str) -> None:
    """Checks that question and answer exist in the rows.

    Raises:
      ValueError: naming the columns that exist, where one does not.
    """
    for role, path in (("question", mapped.question), ("answer", mapped.answer)):
        present: Sequence[Any] = rows.columns
        for index in range(min(_PROBED_ROWS, rows.size)):
            found, present = _walk(rows.read(index), path)
            if found:
                break
        else:
            if path not in rows.columns:
                raise ValueError(
                    f"{where}: no column {path!r} for the {role}; present: {', '.join(map(str, present))}; "
                    f"set data.{role}_column or {role}= in the source"
                )


def _lookup(row: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    found, value = _walk(row, path)
    return value if found else None


def _walk(row: Any, path: str) -> tuple[bool, Any]:
    """Whether a dotted path exists, with its value, or else with the names at the level where it ends."""
    if isinstance(row, Mapping) and path in row:
        return True, row[path]
    head, _, rest = path.partition(".")
    if isinstance(row, Mapping):
        return _walk(row[head], rest) if rest and head in row else (False, list(row))
    if isinstance(row, Sequence) and not isinstance(row, str | bytes) and head.isdecimal() and int(head) < len(row):
        return _walk(row[int(head)], rest) if rest else (True, row[int(head)])
    return False, list(range(len(row))) if isinstance(row, Sequence) and not isinstance(row, str | bytes) else []


def _text(value: Any, path: str, role: str, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value.strip() if value else None
    if isinstance(value, bool) and role == "answer":
        return str(value)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return None if value != value else f"{value:f}" if isinstance(value, Decimal) else str(value)
    raise ValueError(
        f"{where}: column {path!r} holds a {type(value).__name__}, not the text of a {role}; "
        f"set {role}= to a column that does, with dots into nested ones ({path}.0 or {path}.content)"
    )


def _gold(text: str | None, mapped: Mapped) -> str | None:
    if text and mapped.answer_after:
        _, marker, text = text.rpartition(mapped.answer_after)
        text = text.strip() if marker else None
        if text and _THOUSANDS.fullmatch(text):
            text = text.replace(",", "")
    if text and mapped.answer_boxed:
        from igrpo_jax.rewards.extract import last_box

        box = last_box(text)
        text = box[1].strip() if box else None
    return text or None
