"""A comparison as tables: on the terminal, and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from igrpo_jax.edges.printable import printable
from igrpo_jax.study.config import Study


class Cells(NamedTuple):
    """A table of texts; `breaks` are the rows before which there is a line."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    breaks: Sequence[int] = ()


def tables(study: Study, found: Mapping[str, Any]) -> list[Cells]:
    """A comparison's scores, and what each arm has spent."""
    return [_scores(study, found), _budget(study, found["budget"])]


def _scores(study: Study, found: Mapping[str, Any]) -> Cells:
    differences = {(one["arm"], one["metric"]): one for one in found["differences"]}
    rows, breaks, before = [], [], None
    for row in found["rows"]:
        if row["metric"] != before:
            breaks.append(len(rows))
        said = differences.get((row["arm"], row["metric"]))
        rows.append(
            [
                row["metric"] if row["metric"] != before else "",
                label(study, row["arm"]),
                _mean(row),
                str(len(row["seeds"])),
                _number(row["paper"]),
                _mean(said, sign=True) if said else "",
                (said["verdict"] or "one seed, no interval") if said else "",
            ]
        )
        before = row["metric"]
    title = f"{study.title} (mean, {found['confidence']:.0%} interval over seeds)"
    against = f"less {label(study, study.baseline)}"
    return Cells(title, ("metric", "arm", "ours", "seeds", "paper", against, "verdict"), rows, breaks)


def _budget(study: Study, budget: Mapping[str, Any]) -> Cells:
    """What each arm has spent, and how many times as much as the baseline."""
    spent, matched = budget["by_arm"], budget["matched"]
    base = spent.get(study.baseline, {})
    names = [name for its in spent.values() for name in its]
    names = [matched, *(name for name in dict.fromkeys(names) if name != matched)]
    rows = [
        [label(study, arm), *(_number(its.get(name)) + _times(its.get(name), base.get(name)) for name in names)]
        for arm, its in spent.items()
    ]
    head = [f"{name.replace('_', ' ')}{' (matched)' if name == matched else ''}" for name in names]
    return Cells("what a run has spent, mean over seeds", ["arm", *head], rows)


def label(study: Study, arm: str) -> str:
    """What an arm is called."""
    return study.arms[arm].label or arm


def on_terminal(cells: Cells) -> Table:
    """A table for the terminal."""
    table = Table(title=printable(cells.title))
    for name in cells.head:
        table.add_column(name, overflow="fold")
    for index, row in enumerate(cells.rows):
        if index in cells.breaks and index:
            table.add_section()
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def markdown(study: Study, found: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """The comparison as a Markdown file."""
    parts = [f"# {study.title}\n"]
    for cells in tables(study, found):
        lines = [f"{cells.title[0].upper()}{cells.title[1:]}.\n", _line(cells.head), _line(["---"] * len(cells.head))]
        parts.append("\n".join([*lines, *map(_line, cells.rows)]) + "\n")
    if study.source:
        parts.append(f"Paper: {study.source}.\n")
    parts += [f"{note}\n" for note in notes]
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    clean = (printable(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(clean)} |"


def _mean(row: Mapping[str, Any], *, sign: bool = False) -> str:
    """A mean and its bounds."""
    bounds = "" if row["low"] is None else f" [{_number(row['low'], sign)}, {_number(row['high'], sign)}]"
    return _number(row["mean"], sign) + bounds


def _number(value: float | int | None, sign: bool = False) -> str:
    """A number in few digits, blank for what is missing."""
    if value is None:
        return ""
    plus = "+" if sign else ""
    if abs(value) >= 1000:
        return f"{value:{plus},.0f}"
    return f"{value:{plus}.4g}" if abs(value) >= 1 else f"{value:{plus}.4f}"


def _times(value: float | int | None, base: float | int | None) -> str:
    return f" ({value / base:.3f}x)" if value is not None and base else ""
