"""A study as its directory shows it: arms, seeds, intervals, verdicts, and the paper's numbers beside ours."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igrpo_jax.edges.printable import printable
from igrpo_jax.report.runs import Recorded, read_json, read_run
from igrpo_jax.report.series import is_number


class Study(NamedTuple):
    """A study's runs and what its comparison says.

    Attributes:
      title: of the study.
      rows: `label`, `metric`, `mean`, `low`, `high`, `seeds`, `paper` of each arm and metric.
      differences: `label`, `against`, `metric`, `mean`, `low`, `high`, `verdict`.
      budget: what is matched.
      spent: arm's label -> quantity -> number.
      runs: those that can be shown.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    differences: Sequence[Mapping[str, Any]]
    budget: str
    spent: Mapping[str, Mapping[str, float | int]]
    runs: Sequence[Recorded]


def is_study(directory: Path) -> bool:
    """Whether a directory holds a study."""
    return (directory / "study.json").is_file()


def read_study(root: Path, say: Callable[[str], None]) -> Study | None:
    """The study in a directory; None, and a line, where study.json cannot be read."""
    about = lambda line: say(f"{printable(root.name)}: {line}")
    plan = read_json(root / "study.json", about)
    arms = plan.get("arms")
    if not isinstance(arms, dict) or not isinstance(plan.get("runs"), list):
        about("left out, study.json names no arms or no runs")
        return None
    labels = {arm: _label(arm, spec) for arm, spec in arms.items()}
    found = read_json(root / "comparison.json", about)
    runs = [read for entry in plan["runs"] if (read := _run(root, entry, labels, about)) is not None]
    budget = found["budget"] if isinstance(found.get("budget"), dict) else {}
    shown = lambda arm: labels.get(arm, printable(str(arm)))
    return Study(
        title=printable(str(plan.get("title") or plan.get("name") or root.name)),
        rows=[row | {"label": shown(row["arm"])} for row in _rows(found, "rows", about)],
        differences=[
            row | {"label": shown(row["arm"]), "against": shown(row.get("against"))}
            for row in _rows(found, "differences", about)
        ],
        budget=printable(str(budget.get("matched", plan.get("budget", "")))),
        spent={
            shown(arm): {printable(str(name)): value for name, value in spent.items() if is_number(value)}
            for arm, spent in (budget.get("by_arm") or {}).items()
            if isinstance(spent, dict)
        },
        runs=runs,
    )


def _label(arm: str, spec: Any) -> str:
    return printable(str(spec.get("label") or arm) if isinstance(spec, dict) else arm)


def _run(root: Path, entry: Any, labels: Mapping[str, str], say: Callable[[str], None]) -> Recorded | None:
    """One run of the plan; what has not begun is said in a line like any that cannot be read."""
    if not isinstance(entry, dict) or not isinstance(entry.get("workdir"), str):
        say("a run of study.json is left out, it names no workdir")
        return None
    label = labels.get(str(entry.get("arm")), printable(str(entry.get("arm"))))
    name, told = f"{label}, seed {printable(str(entry.get('seed')))}", str(entry.get("status", ""))
    return read_run(root / entry["workdir"], name, say, arm=label, told=told)


def _rows(found: Mapping[str, Any], name: str, say: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = found.get(name, [])
    whole = [
        r
        for r in rows
        if isinstance(r, dict) and isinstance(r.get("metric"), str) and "arm" in r and is_number(r.get("mean"))
    ]
    if len(whole) < len(rows):
        say(f"{len(rows) - len(whole)} {name} of comparison.json are left out, they name no arm, metric or mean")
    return [row | {"metric": printable(row["metric"])} for row in whole]
