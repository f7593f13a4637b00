"""Scores of evaluations as plain rows with intervals, from eval.jsonl or, where there is none, from metrics.jsonl."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from igrpo_jax.edges.printable import printable
from igrpo_jax.records.evaluations import settings as settings_of
from igrpo_jax.report.runs import Record, Recorded
from igrpo_jax.report.series import is_number

WIDTH = 1.96
"""Standard errors on either side that hold 95 % of a normal distribution."""

SETTINGS = {
    "num_drafts": "{:g} drafts", "rounds": "{:g} rounds", "temperature": "temperature {:g}", "top_p": "top-p {:g}",
    "max_completion_length": "at most {:g} tokens",
}  # fmt: skip
"""What stands beside a score of how it was to be sampled, alike at every step."""

TAKEN = {"n": "{:g} samples", "sampled_tokens": "{:,.0f} tokens sampled"}
"""What stands beside a score of what was sampled then."""

PROMPT = 80
"""Characters of a prompt that stand there."""

_NAME = re.compile(
    r"^eval/(?P<set>.+?)/(?P<mode>drafted/|refined/|)(?P<metric>(?:[^/]+/)?(?:avg|pass|maj)@\d+)$", re.DOTALL
)


class Score(NamedTuple):
    """One number of one evaluation.

    Attributes:
      run, arm: whose, see `Recorded`.
      step: training steps before it.
      set: the evaluation set.
      mode: `bare` or `refined`, with the selection of the draft.
      metric: `avg@8` and the like.
      value: between 0 and 1.
      low, high: of its 95 % interval over problems; None where no error is known.
      settings: how it was to be sampled, in words; empty where only metrics.jsonl knows of it.
      taken: what was sampled, in words; a result like the value.
      same: all settings, as JSON: evaluations of a run that differ in the step alone have the same.
    """

    run: str
    arm: str
    step: int
    set: str
    mode: str
    metric: str
    value: float
    low: float | None
    high: float | None
    settings: str
    taken: str = ""
    same: str = ""


def scores_of(run: Recorded) -> list[Score]:
    """All scores of a run; an evaluation that stands in both files counts once, with what eval.jsonl knows of it."""
    found = [score for record in run.scores for score in _of_line(run, record)]
    known = {(score.step, score.set, score.mode.split(",")[0]) for score in found}
    return found + [
        s for record in run.evaluations for s in _of_metrics(run, record) if (s.step, s.set, s.mode) not in known
    ]


def _of_line(run: Recorded, record: Record) -> Iterator[Score]:
    mode = printable(str(record.get("mode", "bare")))
    if record.get("select"):
        mode += f", {printable(str(record['select']))}{' (sees the gold answer)' if record.get('gold') else ''}"
    words = (", ".join(_settings(record)), ", ".join(_said(record, TAKEN)))
    same = settings_of({name: value for name, value in record.items() if name != "step"})
    for metric, value in record["scores"].items():
        if re.fullmatch(r"(?:.+/)?(?:avg|pass|maj)@\d+", metric) and is_number(value):
            error = record["scores"].get(f"{metric}_stderr", by_problem_error(metric, record.get("by_problem")))
            yield _score(run, record["step"], record["set"], mode, metric, value, error, *words, same)


def _settings(record: Record) -> Iterator[str]:
    """How an evaluation was to be sampled."""
    yield from _said(record, SETTINGS)
    for name in ("prompt", "system"):
        if isinstance(text := record.get(name), str) and text:
            yield f"{name} {printable(text[:PROMPT])}{'...' if len(text) > PROMPT else ''}"


def _said(record: Record, names: Mapping[str, str]) -> Iterator[str]:
    for name, words in names.items():
        if is_number(record.get(name)) and (record[name] or name not in ("num_drafts", "rounds")):
            yield words.format(record[name])


def _of_metrics(run: Recorded, record: Record) -> Iterator[Score]:
    for name, value in record.items():
        if (found := _NAME.match(name)) and is_number(value):
            mode = "refined" if found["mode"] else "bare"
            yield _score(run, record["step"], found["set"], mode, found["metric"], value, record.get(f"{name}_stderr"))


def by_problem_error(metric: str, rows: Any) -> float | None:
    """Standard error over problems of avg@n or pass@k, from `[problem, right, n]` of each; None where it is not known.

    >>> by_problem_error("pass@1", [["a", 2, 2], ["b", 0, 2]])
    0.5
    """
    kind, _, k = metric.rpartition("/")[2].rpartition("@")
    if kind not in ("avg", "pass") or not isinstance(rows, list) or len(rows) < 2:
        return None
    try:
        each = [r / n if kind == "avg" else 1 - math.comb(n - r, int(k)) / math.comb(n, int(k)) for _, r, n in rows]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    mean = sum(each) / len(each)
    return math.sqrt(sum((x - mean) ** 2 for x in each) / (len(each) - 1) / len(each))


def _score(
    run: Recorded,
    step: int,
    of: str,
    mode: str,
    metric: str,
    value: float | int,
    error: float | int | None,
    settings: str = "",
    taken: str = "",
    same: str = "",
) -> Score:
    half = WIDTH * error if is_number(error) else None
    low, high = (None, None) if half is None else (max(value - half, 0.0), min(value + half, 1.0))
    where = (run.name, run.arm, step, printable(of), mode, printable(metric))
    return Score(*where, float(value), low, high, settings, taken, same)


def newest(scores: Sequence[Score]) -> list[Score]:
    """All scores of the last evaluation of every run, set and mode, and of every other settings that there are.

    What was sampled is no setting. Where settings are not known, they are taken for those of a later evaluation.
    """
    last: dict[Any, int] = {}
    anyhow: dict[Any, int] = {}
    for s in scores:
        last[s.run, s.set, s.mode, s.same] = max(s.step, last.get((s.run, s.set, s.mode, s.same), s.step))
        plain = (s.run, s.set, s.mode.split(",")[0])
        anyhow[plain] = max(s.step, anyhow.get(plain, s.step))
    return [
        s
        for s in scores
        if s.step == last[s.run, s.set, s.mode, s.same]
        and (s.same or s.step == anyhow[s.run, s.set, s.mode.split(",")[0]])
    ]
