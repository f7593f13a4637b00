"""What a run has to show, by metric: from eval.jsonl where it has one, else from metrics.jsonl."""

import fnmatch
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igrpo_jax.config import Config
from igrpo_jax.evaluate.evaluate import conditions
from igrpo_jax.evaluate.scores import pass_at_k
from igrpo_jax.learning.spending import spent, training
from igrpo_jax.records.evaluations import read_evaluations
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
    evaluations = read_evaluations(workdir)
    costs, scores = spent(steps, config), {}
    for pattern in wanted:
        name, _, percent = re.fullmatch(r"(.*?)(@(\d+)%)?", pattern, re.DOTALL).groups()  # type: ignore[union-attr]
        at = None if percent is None else int(percent) / 100
        if name.startswith("eval/"):
            found = evaluated(evaluations, records, config, at)
        else:
            found = trained(steps, at) | cost(steps, costs)
        for metric, score in found.items():
            if fnmatch.fnmatchcase(metric, name):
                scores.setdefault(metric + ("" if percent is None else f"@{percent}%"), score)
    return Results(scores, costs)


def evaluated(
    evaluations: Sequence[Record], records: Sequence[Record], config: Config, at: float | None = None
) -> dict[str, Score]:
    """The scores of one evaluation.

    Args:
      evaluations: lines of eval.jsonl; those that the run has not made itself are left out: of other settings than the
        config's, of other sets, or after other steps.
      records: of metrics.jsonl, which name what the run itself has evaluated, and have all scores of a run without
        eval.jsonl.
      config: of the run.
      at: of which point of training, a share of its steps; None is the last evaluation.

    Returns:
      `eval/<set>/<score>`, or `eval/<set>/refined/<score>` with a draft in the prompt: `avg`, whatever its n, `maj` of
      the largest k, pass@k and maj@k; and `eval/mean/avg` and so on, the means over sets.
    """
    ours = [line for line in evaluations if _is_as(line, config) and _is_recorded(line, records)]
    if ours:
        found = {name: score for line in _at(ours, at) for name, score in _scores(line).items()}
    else:
        lines = _at([record for record in records if any(name.startswith("eval/") for name in record)], at)
        found = {n: Score(float(v)) for one in lines for n, v in one.items() if n.startswith("eval/") and v is not None}
    scores: dict[str, Score] = {}
    for name, score in sorted(found.items(), key=lambda item: _k(item[0])):
        kind, at_sign, _ = name.rpartition("/")[2].partition("@")
        if at_sign and kind in ("avg", "maj") and not name.endswith("_stderr"):
            scores[f"{name.rpartition('/')[0]}/{kind}"] = score  # the largest k comes last
    rest = {name: score for name, score in found.items() if "avg@" not in name}
    return _means(scores) | scores | rest


def _is_as(line: Record, config: Config) -> bool:
    """Whether an evaluation was made as the run makes its own: under its settings, and not graded anew."""
    wanted = conditions(line["mode"], config) | {"regraded": None}
    return all(line.get(name, value) == value for name, value in wanted.items())


def _is_recorded(line: Record, records: Sequence[Record]) -> bool:
    """Whether the run itself has evaluated this set after that step; its metrics have such scores then."""
    names = _scores(line)
    return any(record["step"] == line["step"] and any(name in record for name in names) for record in records)


def _k(name: str) -> int:
    """The number behind the last @ of a score's name, 0 without."""
    number = name.rpartition("@")[2]
    return int(number) if number.isdecimal() else 0


def _at(records: Sequence[Record], at: float | None) -> list[Record]:
    """The records of the step that is nearest to a point of training, of the last one without."""
    steps = [record["step"] for record in records]
    if not steps:
        return []
    step = max(steps) if at is None else min(steps, key=lambda step: abs(step - at * max(steps)))
    return [record for record in records if record["step"] == step]


def _scores(line: Record) -> dict[str, Score]:
    """The scores of one line of eval.jsonl; avg@n and pass@k by problem."""
    place = f"eval/{line['set']}/" + ("" if line["mode"] == "bare" else f"{line['mode']}/")
    scores = {}
    for name, value in line["scores"].items():
        if value is None:
            continue
        kind, _, k = name.rpartition("/")[2].partition("@")
        known, cells = line.get("by_problem"), None
        if known and kind == "avg" and k.isdecimal():
            cells = [{problem: right / n for problem, right, n in known}]
        elif known and kind == "pass":
            cells = [{problem: float(pass_at_k(n, right, int(k))) for problem, right, n in known}]
        scores[place + name] = Score(float(value), cells)
    return scores


def _means(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Means over all sets."""
    groups: dict[str, list[Score]] = {}
    for name, score in scores.items():
        _, _, rest = name.split("/", 2)
        groups.setdefault(rest, []).append(score)
    sets = {name.split("/")[1] for name in scores}
    return {
        f"eval/mean/{rest}": Score(
            statistics.fmean(score.value for score in group),
            [part for score in group for part in score.cells or ()] if all(score.cells for score in group) else None,
        )
        for rest, group in groups.items()
        if len(group) == len(sets)
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
