"""Charts by Altair: plain rows in, Vega-Lite out. Nothing here names a color of the page; a theme gives these."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from igrpo_jax.report.evaluations import Score
from igrpo_jax.report.series import Curves, is_number

FEW = 60
"""Points of a curve up to which each is marked."""

NUMBER = "format(datum.value, datum.value && abs(datum.value) < 1e-3 ? '.2~e' : ',.6~g')"
"""Labels of an axis, in Vega's language."""


class Figure(NamedTuple):
    """A chart with its words.

    Attributes:
      name: of its files, and its place in the page.
      title, caption: what is seen, and how to read it.
      chart: Vega-Lite, as wide as its place.
    """

    name: str
    title: str
    caption: str
    chart: dict[str, Any]


def curves(points: Sequence[Mapping[str, Any]], spec: Curves) -> Figure | None:
    """Lines over training steps; None where there is nothing to draw, or all is 0.

    One run's curves differ in color; of several runs, runs (or arms) do, and curves are dashed.
    """
    import altair as alt

    if not any(point["value"] for point in points):
        return None
    names, arms = _distinct(points, "series"), _distinct(points, "arm")
    encoding: Any = {
        "x": alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, grid=False)),
        "y": alt.Y("value:Q", title=spec.axis, scale=alt.Scale(zero=False), axis=alt.Axis(labelExpr=NUMBER)),
        "detail": "run:N",
        "tooltip": [
            alt.Tooltip("run:N"),
            alt.Tooltip("series:N"),
            alt.Tooltip("step:Q"),
            alt.Tooltip("value:Q", format=".4g"),
        ],
    }
    apart = _told_apart(names, arms)
    base = alt.Chart(alt.Data(values=list(points))).encode(**encoding, color=apart.pop("color"))
    many = len(points) / (len(names) * len(_distinct(points, "run"))) > FEW
    marks = base.mark_point(filled=True, size=60 if many else 26, opacity=0 if many else 1)
    return Figure(
        spec.name, spec.title, spec.caption, _finished(base.mark_line(strokeWidth=2, clip=True).encode(**apart) + marks)
    )


def _told_apart(names: Sequence[str], arms: Sequence[str]) -> dict[str, Any]:
    import altair as alt

    top = alt.Legend(orient="top", title=None, labelLimit=260, columns=3, symbolOpacity=1)
    dashes = alt.Legend(orient="top", title=None, labelLimit=260, columns=3, symbolType="stroke")
    if len(arms) < 2:
        return {"color": alt.Color("series:N", sort=list(names), legend=top if len(names) > 1 else None)}
    apart: dict[str, Any] = {"color": alt.Color("arm:N", sort=list(arms), legend=top)}
    if len(names) > 1:
        apart["strokeDash"] = alt.StrokeDash("series:N", sort=list(names), legend=dashes)
    return apart


def evaluation(scores: Sequence[Score], of: str, name: str) -> Figure | None:
    """Scores of one set over steps, with the intervals that are known."""
    import altair as alt

    rows = comparable([score for score in scores if score.set == of])
    if not rows:
        return None
    apart = _told_apart(_distinct(rows, "series"), _distinct(rows, "arm"))
    shape: Any = {"shape": alt.Shape("series:N", legend=None)} if "strokeDash" in apart else {}
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "step:Q", title="step", axis=alt.Axis(tickMinStep=1, grid=False), scale=alt.Scale(padding=12, nice=False)
        ),
        detail=["run:N", "settings:N"],
        color=apart["color"],
        tooltip=[
            *("run:N", "metric:N", "mode:N", "settings:N", "taken:N", "step:Q"),
            *(alt.Tooltip(f"{n}:Q", format=".3f") for n in ("value", "low", "high")),
        ],
    )
    height = alt.Y("value:Q", title="share of problems", scale=alt.Scale(zero=False))
    dash: Any = {"strokeDash": apart["strokeDash"]} if "strokeDash" in apart else {}
    chart = base.mark_line(strokeWidth=2).encode(y=height, **dash)
    chart += base.mark_point(filled=True, size=55, opacity=1).encode(y=height, **shape)
    if known := [row for row in rows if row["low"] is not None]:
        bars = base.properties(data=alt.Data(values=known)).mark_rule(strokeWidth=2, opacity=0.55)
        chart = bars.encode(y=alt.Y("low:Q", title="share of problems"), y2="high:Q") + chart
    caption = (
        "Bars are 95 % intervals over problems, of the scores whose error is known. n is all answers of a problem, as "
        "many as an evaluation has."
    )
    return Figure(name, f"Evaluation: {of}", caption, _finished(chart))


def comparable(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """One set's scores as rows of a figure, with the `series` each belongs to.

    avg@n and maj@n are called so whatever their n, and every evaluation shows those of its largest. pass@k is another
    quantity for every k: of each mode that k is shown which most of its evaluations have, of several the largest.
    """
    evaluation = lambda score: (score.run, score.step, score.mode, score.settings)
    largest: dict[Any, Score] = {}
    passes: dict[Any, Counter[int]] = {}
    for score in scores:
        kind, _, k = score.metric.rpartition("@")
        if kind.rpartition("/")[2] == "pass":
            passes.setdefault((score.mode, kind), Counter())[int(k)] += 1
            continue
        other = largest.get(key := (*evaluation(score), kind))
        if other is None or int(k) >= int(other.metric.rpartition("@")[2]):
            largest[key] = score
    common = {(mode, f"{kind}@{max(counts, key=lambda k: (counts[k], k))}") for (mode, kind), counts in passes.items()}
    rows = []
    for score in scores:
        kind = score.metric.rpartition("@")[0]
        if (score.mode, score.metric) in common:
            rows.append(_row(score, score.metric))
        elif largest.get((*evaluation(score), kind)) is score:
            rows.append(_row(score, f"{kind}@n"))
    return rows


def _row(score: Score, called: str) -> dict[str, Any]:
    row = {name: value for name, value in score._asdict().items() if name != "same"}
    return row | {"series": f"{called} {score.mode}"}


def phases(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Seconds of each run by phase, one bar a run."""
    import altair as alt

    if not rows:
        return None
    order, runs = _distinct(rows, "phase"), _distinct(rows, "run")
    chart = (
        alt.Chart(alt.Data(values=[{**row, "order": order.index(row["phase"])} for row in rows]))
        .mark_bar(height=26)
        .encode(
            x=alt.X("seconds:Q", title="seconds in all steps", stack="zero"),
            y=alt.Y("run:N", title=None, sort=runs, axis=alt.Axis(labelLimit=160, labels=len(runs) > 1, ticks=False)),
            color=alt.Color("phase:N", sort=order, legend=alt.Legend(orient="top", title=None, columns=3)),
            order="order:Q",
            tooltip=["run:N", "phase:N", alt.Tooltip("seconds:Q", format=",.1f")],
        )
    )
    caption = "Phases follow each other; grading goes on beside decoding. Evaluations and checkpoints are not in it."
    return Figure("phases", "Seconds by phase", caption, _finished(chart, height=70 + 36 * len(runs)))


def comparison(rows: Sequence[Mapping[str, Any]], metric: str, name: str) -> Figure:
    """Means of a study's arms with intervals over seeds, every seed, and the paper's number as a diamond."""
    import altair as alt

    part = [row for row in rows if row["metric"] == metric]
    means = [{k: row.get(k) for k in ("label", "mean", "low", "high", "paper")} for row in part]
    seeds = [{"label": row["label"], "seed": value} for row in part for value in row.get("seeds") or []]
    y = alt.Y("label:N", title=None, sort=[row["label"] for row in part], axis=alt.Axis(labelLimit=200))
    x = lambda column: alt.X(f"{column}:Q", title=None, scale=alt.Scale(zero=False, padding=10, nice=False))
    of = lambda values: alt.Chart(alt.Data(values=values)).encode(
        y=y, tooltip=["label:N", *(alt.Tooltip(f"{n}:Q", format=".4g") for n in ("mean", "low", "high", "paper"))]
    )
    chart = of(means).mark_point(filled=True, size=90, opacity=1).encode(x=x("mean"))
    if bars := [row for row in means if is_number(row["low"]) and is_number(row["high"])]:
        chart = of(bars).mark_rule(strokeWidth=3, opacity=0.5).encode(x=x("low"), x2="high:Q") + chart
    if seeds:
        ticks = alt.Chart(alt.Data(values=seeds)).mark_tick(thickness=2, size=14, opacity=0.6)
        chart += ticks.encode(y=y, x=x("seed"), tooltip=["label:N", "seed:Q"])
    if papers := [row for row in means if is_number(row["paper"])]:
        chart += of(papers).mark_point(shape="diamond", size=90).encode(x=x("paper"))
    caption = "Dot: mean over seeds. Bar: its interval. Ticks: seeds. Diamond: the paper's, of its own model and data."
    return Figure(name, metric, caption, _finished(chart, height=60 + 34 * len(part)))


def _finished(chart: Any, height: int = 280) -> dict[str, Any]:
    """A chart as wide as its place, as JSON."""
    return chart.properties(width="container", height=height, autosize={"type": "fit", "contains": "padding"}).to_dict()


def _distinct(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in rows))
