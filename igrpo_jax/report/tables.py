"""The report's tables as plain data: what a run came to, what it cost, and in what configs differ."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from igrpo_jax.config import Config, fields, to_dict
from igrpo_jax.edges.printable import printable
from igrpo_jax.report.runs import Recorded, differences
from igrpo_jax.report.series import is_number, mean

WINDOW = 5
"""Steps at the beginning and at the end whose means are shown."""

SUMMARY = {
    "draft/reward": "reward of the drafts",
    "draft/reward_best": "reward of the best draft",
    "reward": "reward of what is trained on",
    "refine/gain": "gain over the draft",
    "frac_reward_zero_std": "groups without spread",
    "entropy": "entropy",
    "completions/mean_length": "tokens a completion",
    "completions/clipped_ratio": "cut off",
    "grad_norm": "gradient norm",
    "step_time": "seconds a step",
}
"""Metrics at a glance."""

PHASES = {
    "time/draft_s": "drafting",
    "time/refine_s": "refining",
    "time/wait_s": "waiting for rewards",
    "time/update_s": "updating",
}
"""Parts of a step that follow each other; grading goes on beside them."""

HOUR = 3600.0


class Row(NamedTuple):
    """A line of a table: its name, its cells, and whether they differ in what matters."""

    name: str
    cells: list[str]
    differs: bool = False


def summary(runs: Sequence[Recorded]) -> list[Row]:
    """Means over the first and the last steps, two cells a run."""
    rows = [Row("steps", [cell for run in runs for cell in _stretches(run)])]
    for metric, words in SUMMARY.items():
        cells = [
            number(mean(record.get(metric) for record in part))
            for run in runs for part in (run.steps[:WINDOW], run.steps[-WINDOW:])
        ]  # fmt: skip
        if any(cells):
            rows.append(Row(words, cells))
    return rows


def _stretches(run: Recorded) -> list[str]:
    ends = [(part[0]["step"], part[-1]["step"]) if part else None for part in (run.steps[:WINDOW], run.steps[-WINDOW:])]
    return [f"{end[0]} to {end[1]}" if end else "none" for end in ends]


def phases(runs: Sequence[Recorded]) -> list[dict[str, Any]]:
    """`run`, `phase` and `seconds` of all steps together; what no phase accounts for is `other`."""
    found = []
    for run in runs:
        seconds = {words: _sum(run, name) for name, words in PHASES.items()}
        seconds["other"] = max(_sum(run, "step_time") - sum(seconds.values()), 0.0)
        found += [{"run": run.name, "phase": phase, "seconds": value} for phase, value in seconds.items()]
    return [row for row in found if row["seconds"] > 0]


def cost(runs: Sequence[Recorded], price: float | int) -> list[Row]:
    """A row a quantity, a cell a run.

    Args:
      runs: whose cost.
      price: of one device for one hour, in whatever money; 0 where none is given.
    """
    hours = [_sum(run, "step_time") / HOUR for run in runs]
    device_hours = [math.fsum(_of(r, "step_time") * devices(r) for r in run.steps) / HOUR for run in runs]
    phase = {words: [f"{_sum(run, name):,.0f}" for run in runs] for name, words in PHASES.items()}
    rows = [
        Row("steps", [str(len(run.steps)) for run in runs]),
        Row("hours in steps", [f"{value:,.3f}" for value in hours]),
        *(Row(f"seconds {words}", cells) for words, cells in phase.items()),
        Row("seconds grading, beside decoding", [f"{_sum(run, 'time/grade_s'):,.0f}" for run in runs]),
        Row("tokens sampled", [f"{_sum(run, 'num_tokens'):,.0f}" for run in runs]),
        Row("tokens trained on", [f"{_sum(run, 'train/tokens'):,.0f}" for run in runs]),
        Row("tokens sampled a second", [number(mean(r.get("tokens_per_s/sample") for r in run.steps)) for run in runs]),
        Row(
            "tokens trained on a second", [number(mean(r.get("tokens_per_s/train") for r in run.steps)) for run in runs]
        ),
        Row("peak memory, GB", [number(max((_of(r, "memory/peak_gb") for r in run.steps), default=0)) for run in runs]),
        Row("devices", [_span([devices(r) for r in run.steps]) for run in runs]),
        Row("device hours", [f"{value:,.3f}" for value in device_hours]),
    ]
    if price:
        rows.append(Row(f"money, at {price:g} a device hour", [f"{value * price:,.2f}" for value in device_hours]))
    return rows


def devices(record: Mapping[str, Any]) -> float:
    """How many devices a step took; records of older runs do not say, and count as one."""
    return _of(record, "devices") or 1.0


def configs(runs: Sequence[Recorded]) -> tuple[list[str], list[Row]]:
    """The table's heads and a row a setting; one run is put beside the defaults."""
    heads, columns = [run.name for run in runs], [dict(run.settings) for run in runs]
    if len(runs) == 1:
        heads, columns = [*heads, "default"], [*columns, fields(to_dict(Config()))]
    names = list(dict.fromkeys(name for settings in columns for name in settings))
    rows = []
    for name in names:
        cells = [_text(settings[name]) if name in settings else "" for settings in columns]
        differs = len(set(cells)) > 1 and not (len(runs) == 1 and name.startswith(("architecture.", "source.")))
        rows.append(Row(printable(name), cells, differs))
    return heads, rows


def unlike(runs: Sequence[Recorded]) -> str:
    """In what settings the runs are different experiments, as a line; empty where they are not, as far as is known."""
    names = [printable(name) for name in differences(runs)]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"these runs differ in {', '.join(names[:8])}{more}; see the configs below" if names else ""


def number(value: float | int | None) -> str:
    """A cell of three digits after the point, or fewer where the number is large; blank for what is missing.

    >>> number(0.12345), number(1234.5), number(None)
    ('0.123', '1,234', '')
    """
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _text(value: Any) -> str:
    """A setting in one form, however JSON and Python differ about tuples."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) if value else "()"
    return printable(value if isinstance(value, str) and value else repr(value))


def _sum(run: Recorded, name: str) -> float:
    return math.fsum(_of(record, name) for record in run.steps)


def _of(record: Mapping[str, Any], name: str) -> float:
    value = record.get(name)
    return float(value) if is_number(value) else 0.0


def _span(values: Sequence[float]) -> str:
    ends = sorted({min(values), max(values)}) if values else []
    return " to ".join(f"{value:g}" for value in ends)
