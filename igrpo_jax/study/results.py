"""What a run has to show, by metric: from eval.jsonl where it has one, else from metrics.jsonl."""

import fnmatch
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igrpo_jax.config import Config
from igrpo_jax.evaluate import pass_at_k
from igrpo_jax.learning.spending import spent, training
from igrpo_jax.records.lines import read_records

LATE = 0.25
"""Share of the steps, the last ones, over which a metric of training is averaged."""

NEAR = 0.05
"""Share of the steps on both sides of a point in training over which a metric is averaged there."""

Record = Mapping[str, Any]

Cells = Sequence[Mapping[Any, float]]
"""A score by problem, one mapping a set: the score is the mean over sets of the means over their problems."""


class Score(NamedTuple):
    """A metric's value in one run, and its cells where it is known by problem."""

    value: float
    cells: Cells | None = None


class Results(NamedTuple):
    """What one run has to show: scores by metric, and what it has spent."""

    scores: dict[str, Score]
    spent: dict[str, float]


def read_results(workdir: Path, config: Config, wanted: Sequence[str]) -> Results:
    """What a run has to show.

    Args:
      workdir: the run's directory.
      config: of the run.
      wanted: metrics by name, see `Study.metrics`.

    Raises:
      ValueError: there is no record of a step of training.
    """
    records = read_records(workdir / "metrics.jsonl")
    steps = training(records)
    if not steps:
        raise ValueError(f"{workdir / 'metrics.jsonl'} has no step of training")
    evaluations = read_records(workdir / "eval.jsonl")
    costs, scores = spent(steps, config), {}
    for pattern in wanted:
        name, _, percent = re.fullmatch(r"(.*?)(@(\d+)%)?", pattern, re.DOTALL).groups()  # type: ignore[union-attr]
        at = None if percent is None else int(percent) / 100
        if name.startswith("eval/"):
            found = evaluated(evaluations, records, at)
        else:
            found = trained(steps, at) | cost(steps, costs)
        for metric, score in found.items():
            if fnmatch.fnmatchcase(metric, name):
                scores.setdefault(metric + ("" if percent is None else f"@{percent}%"), score)
    return Results(scores, costs)


def evaluated(evaluations: Sequence[Record], records: Sequence[Record], at: float | None = None) -> dict[str, Score]:
    """The scores of one evaluation: `eval/<set>/<score>`, and the means over sets, `eval/mean/avg` and so on.

    Args:
      evaluations: lines of eval.jsonl; with a draft in the prompt the score's name begins with the mode and what
        selected the draft, as in `eval/gsm8k/refined-majority/avg@8`.
      records: of metrics.jsonl, for a run without the former.
      at: of which point of training, a share of its steps; None is the last evaluation.
    """
    if evaluations:
        line = _at(evaluations, at)
        found = {name: score for one in line for name, score in _scores(one).items()}
    else:
        lines = _at([record for record in records if any(name.startswith("eval/") for name in record)], at)
        found = {n: Score(float(v)) for one in lines for n, v in one.items() if n.startswith("eval/") and v is not None}
    found = {name: score for name, score in found.items() if not name.endswith("_stderr")}
    return _means(found) | found


def _at(records: Sequence[Record], at: float | None) -> list[Record]:
    """The records of the step that is nearest to a point of training, of the last one without."""
    steps = [record["step"] for record in records]
    if not steps:
        return []
    step = max(steps) if at is None else min(steps, key=lambda step: abs(step - at * max(steps)))
    return [record for record in records if record["step"] == step]


def _scores(line: Record) -> dict[str, Score]:
    """The scores of one line of eval.jsonl; avg@n and pass@k by problem."""
    place = f"eval/{line['set']}/"
    if line["mode"] != "bare":
        place += f"{line['mode']}-{line['select']}/" if line.get("select") else f"{line['mode']}/"
    scores = {}
    for name, value in line["scores"].items():
        if value is None:
            continue
        kind, _, k = name.rpartition("/")[2].partition("@")
        cells = None
        known = line.get("by_problem")
        if known and kind == "avg":
            cells = [{problem: right / n for problem, right, n in known}]
        elif known and kind == "pass":
            cells = [{problem: pass_at_k(n, right, int(k)) for problem, right, n in known}]
        scores[place + name] = Score(float(value), cells)
    return scores


def _means(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Means over sets of avg@n and of maj@n, however many samples each set has."""
    groups: dict[str, dict[str, Score]] = {}
    for name, score in scores.items():
        _, one, *between, last = name.split("/")
        kind, at, _ = last.partition("@")
        if at and kind in ("avg", "maj"):
            groups.setdefault("/".join(("eval", "mean", *between, kind)), {})[one] = score
    sets = {name.split("/")[1] for name in scores}
    return {
        name: Score(
            statistics.fmean(score.value for score in group.values()),
            [part for score in group.values() for part in score.cells or ()] or None,
        )
        for name, group in groups.items()
        if group.keys() == sets
    }


def trained(steps: Sequence[Record], at: float | None = None) -> dict[str, Score]:
    """Metrics of training, each a mean over the last steps, or over those around a point of training."""
    last = steps[-1]["step"]
    part = [step for step in steps if at is None or abs(step["step"] / last - at) <= NEAR]
    part = part or [min(steps, key=lambda step: abs(step["step"] / last - (at or 0)))]
    if at is None:
        part = steps[-max(1, round(LATE * len(steps))) :]
    names = dict.fromkeys(name for step in part for name in step if name != "step")
    values = {name: [step[name] for step in part if step.get(name) is not None] for name in names}
    return {name: Score(statistics.fmean(some)) for name, some in values.items() if some}


def cost(steps: Sequence[Record], costs: Mapping[str, float]) -> dict[str, Score]:
    """What the run has cost, as metrics: `cost/step_s` is the median step, `cost/hours` are those of all steps."""
    times = [step["step_time"] for step in steps if not step.get("compile/count")] or [s["step_time"] for s in steps]
    peaks = [step["memory/peak_gb"] for step in steps if step.get("memory/peak_gb")]
    found = dict(costs) | {"step_s": statistics.median(times), "hours": costs["seconds"] / 3600}
    if costs["seconds"]:
        for unit, name in {"completions": "sampled_completions", "tokens": "sampled_tokens"}.items():
            found[f"{unit}_per_s"] = costs[name] / costs["seconds"]
    if peaks:
        found["peak_gb"] = max(peaks)
    return {f"cost/{name}": Score(float(value)) for name, value in found.items()}
