"""What every kind of source is reduced to: rows by index, and how a row becomes a problem."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from igrpo_jax.types import Problem, Question

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
      question: column of the question, dotted where it is nested (`extra_info.question`, `prompt.0.content`); what is
        there is a text, or a conversation, a list of messages with `role` and `content`.
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

    A conversation that does not end with the user has no question. A column whose name rewards need for themselves
    (prompts, completions, completion_ids, ended) gets an underscore behind it.

    Raises:
      ValueError: if the question is neither text, a number nor a conversation, or the answer neither text nor a number.
    """
    value = _lookup(row, mapped.question)
    question: Question | None = _conversation(value)
    if question is None:
        question = _text(value, mapped.question, "question", where)
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


def _conversation(value: Any) -> list[Any] | None:
    """A conversation as roles and texts alone, empty if it does not end with the user; None if it is something else.

    Some libraries hold a list of records as a record of lists.
    """
    if isinstance(value, Mapping) and all(isinstance(value.get(key), list) for key in ("role", "content")):
        pairs = zip(value["role"], value["content"], strict=False)
        value = [{"role": role, "content": content} for role, content in pairs]
    if not value or not isinstance(value, list | tuple) or not all(isinstance(turn, Mapping) for turn in value):
        return None
    turns = [{"role": turn.get("role"), "content": _said(turn.get("content"))} for turn in value]
    if not all(isinstance(text, str) for turn in turns for text in turn.values()):
        return None
    return turns if turns[-1]["role"] == "user" else []


def _said(content: Any) -> Any:
    """What a message says; that of several parts, if all are texts, is one text."""
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


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
