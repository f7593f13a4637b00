"""Runs in, a page and its figures out."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from igrpo_jax.edges.printable import printable
from igrpo_jax.records.writer import replace_whole
from igrpo_jax.report import figures, series, tables
from igrpo_jax.report.evaluations import Score, newest, scores_of
from igrpo_jax.report.figures import Figure
from igrpo_jax.report.page import COLORS, render, vega_lite
from igrpo_jax.report.runs import Recorded, names_of, read_run
from igrpo_jax.report.samples import Packed, pack
from igrpo_jax.report.studies import Study, is_study, read_study
from igrpo_jax.report.tables import Row, number

SECTIONS = {
    "comparison": "Comparison", "summary": "At a glance", "learning": "Learning", "refining": "Drafts and refinements",
    "evaluations": "Evaluations", "cost": "Cost", "configs": "Configs", "samples": "Samples",
}  # fmt: skip
"""Of the page, in order; the comparison is a study's."""

WIDTH = 560
"""Of figures in files, in points."""

ENDS = ("first steps", "last steps")


class Content(NamedTuple):
    """What a report shows."""

    runs: list[Recorded]
    study: Study | None
    samples: Packed
    notes: list[str]


def write_report(workdirs: Sequence[Path], out: Path, *, price: float | int = 0) -> tuple[Path, list[str]]:
    """Writes report.html and figures/*.svg and *.png into a directory; what cannot be read is left out and named.

    Args:
      workdirs: of runs, or of studies.
      out: the directory; made where there is none.
      price: of one device for one hour; 0 shows no money.

    Returns:
      The page's path, and what it says was left out.

    Raises:
      ValueError: there is nothing to show.
      OSError: the directory cannot be written.
    """
    content = read(workdirs)
    page, shown = lay_out(content, price)
    out.mkdir(parents=True, exist_ok=True)
    write_figures(shown, out / "figures")
    path = out / "report.html"
    replace_whole(path, page.encode())
    return path, content.notes


def read(workdirs: Sequence[Path]) -> Content:
    """Everything that can be read of runs and studies.

    Raises:
      ValueError: nothing can.
    """
    notes: list[str] = []
    runs: list[Recorded] = []
    study = None
    for workdir, name in zip(workdirs, names_of(workdirs), strict=True):
        found = read_study(workdir, notes.append) if is_study(workdir) else None
        if found and study is None:
            study, runs = found, [*runs, *found.runs]
        elif found:
            notes.append(f"{name}: left out, a report shows one study")
        elif not is_study(workdir) and (run := read_run(workdir, name, notes.append)):
            runs.append(run)
    if not runs:
        raise ValueError(
            f"there is nothing to report ({'; '.join(notes)}); give the --workdir of runs that have trained"
        )
    if study is None and len(runs) > 1 and (line := tables.unlike(runs)):
        notes.append(line)
    return Content(runs, study, pack(runs, notes.append), notes)


def lay_out(content: Content, price: float | int) -> tuple[str, list[Figure]]:
    """The page, and the figures in it."""
    runs, scores = content.runs, [score for run in content.runs for score in scores_of(run)]
    groups = {
        "learning": _curves(runs, series.LEARNING),
        "refining": _curves(runs, series.REFINING),
        "evaluations": _evaluations(scores),
        "costs": _present([figures.phases(tables.phases(runs))]) + _curves(runs, series.COST),
    }
    compared = _comparison(content.study) if content.study else None
    shown = [figure for group in groups.values() for figure in group] + (compared["figures"] if compared else [])
    heads, settings = tables.configs(runs)
    described = any(score.settings for score in scores)
    context = groups | {
        "title": content.study.title if content.study else _title(runs),
        "runs": runs,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "sections": [(name, words) for name, words in SECTIONS.items() if compared or name != "comparison"],
        "notes": content.notes,
        "names": [run.name for run in runs],
        "summary_heads": [f"{run.name}: {end}" if len(runs) > 1 else end for run in runs for end in ENDS],
        "summary": tables.summary(runs),
        "study": compared,
        "score_heads": ["step", "score", "95 % interval", *["sampled with"] * described],
        "scores": [_score_row(score, len(runs) > 1, described) for score in newest(scores)],
        "cost": tables.cost(runs, price),
        "price": price,
        "config_heads": heads,
        "configs": settings,
        "differing": sum(row.differs for row in settings),
        "count": content.samples.count,
    }  # fmt: skip
    return render(context, shown, content.samples.packed_index, content.samples.chunks), shown


def _title(runs: Sequence[Recorded]) -> str:
    return ", ".join(run.name for run in runs[:3]) + (" and more" if len(runs) > 3 else "")


def write_figures(shown: Sequence[Figure], folder: Path) -> None:
    """Every figure as SVG and PNG, on white; figures of an earlier report that are no more are removed."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    theme = {
        "background": "white",
        "font": "sans-serif",
        "view": {"stroke": None},
        "range": {"category": COLORS["light"]},
    }
    for figure in shown:
        spec = figure.chart | {"width": WIDTH, "title": figure.title}
        svg = vl_convert.vegalite_to_svg(spec, vl_version=vega_lite(), config=theme)
        replace_whole(folder / f"{figure.name}.svg", svg.encode())
        replace_whole(folder / f"{figure.name}.png", vl_convert.svg_to_png(svg, scale=2))
    names = {figure.name for figure in shown}
    for path in [*folder.glob("*.svg"), *folder.glob("*.png")]:
        if path.stem not in names:
            path.unlink()


def _curves(runs: Sequence[Recorded], specs: Iterable[series.Curves]) -> list[Figure]:
    return _present([figures.curves(series.points(runs, spec), spec) for spec in specs])


def _evaluations(scores: Sequence[Score]) -> list[Figure]:
    sets = dict.fromkeys(score.set for score in scores)
    return _present([figures.evaluation(scores, of, f"evaluation-{k}") for k, of in enumerate(sets, 1)])


def _present(some: Sequence[Figure | None]) -> list[Figure]:
    return [figure for figure in some if figure]


def _score_row(score: Score, several: bool, settings: bool) -> Row:
    name = f"{score.set}: {score.metric} {score.mode}"
    interval = "" if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"
    how = ", ".join(filter(None, (score.settings, score.taken)))
    cells = [str(score.step), f"{score.value:.3f}", interval, *[how] * settings]
    return Row(f"{score.run}, {name}" if several else name, cells)


def _comparison(study: Study) -> dict[str, Any]:
    """A study's tables and figures."""
    metrics = dict.fromkeys(row["metric"] for row in study.rows)
    quantities = list(dict.fromkeys(name for spent in study.spent.values() for name in spent))
    return {
        "figures": [figures.comparison(study.rows, metric, f"comparison-{k}") for k, metric in enumerate(metrics, 1)],
        "rows": [Row(f"{row['label']}: {row['metric']}", _mean_cells(row)) for row in study.rows],
        "differences": [
            Row(
                f"{row['label']} less {row['against']}: {row['metric']}",
                [number(row["mean"]), _interval(row), printable(str(row.get("verdict") or ""))],
            )
            for row in study.differences
        ],
        "budget": "What each arm took" + (f"; matched: {study.budget.replace('_', ' ')}." if study.budget else "."),
        "spent_heads": [name.replace("_", " ") for name in quantities],
        "spent": [
            Row(label, [f"{spent[name]:,.1f}".removesuffix(".0") if name in spent else "" for name in quantities])
            for label, spent in study.spent.items()
        ],
    }


def _mean_cells(row: Mapping[str, Any]) -> list[str]:
    seeds = row.get("seeds")
    paper = row.get("paper")
    count = str(len(seeds)) if isinstance(seeds, list) else ""
    return [number(row["mean"]), _interval(row), count, number(paper if series.is_number(paper) else None)]


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    return f"{number(low)} to {number(high)}" if series.is_number(low) and series.is_number(high) else ""
