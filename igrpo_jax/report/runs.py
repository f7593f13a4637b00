"""What a run has written down, read for a report; what cannot be read costs itself alone and is said."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from igrpo_jax.config import Config, fields, to_dict
from igrpo_jax.edges.printable import printable
from igrpo_jax.records.evaluations import settings as settings_of
from igrpo_jax.records.lease import lives
from igrpo_jax.records.lines import read_records
from igrpo_jax.records.workdir import FREE, recorded

Record = dict[str, Any]

LIMITS = ("train.max_sampled_tokens", "train.max_trained_tokens", "train.max_seconds")
"""Settings by which a run may end at another step than `train.steps`; 0 is no limit."""


class Recorded(NamedTuple):
    """A run as its directory shows it.

    Attributes:
      name: what it is called in the report; no two are called the same.
      arm: what it is one of several of, an arm of a study; the name elsewhere.
      workdir: where it is.
      settings: what config.json says, by `section.field`; the model is under `architecture.`, sources under `source.`.
      steps: metrics of training steps, oldest first, each step once.
      evaluations: metrics that begin with `eval/`, oldest first.
      scores: lines of eval.jsonl, oldest first, of the same evaluation the last one.
      live: whether a process is writing there.
      told: how far study.json says it is; empty outside a study.
    """

    name: str
    arm: str
    workdir: Path
    settings: Mapping[str, Any]
    steps: Sequence[Record]
    evaluations: Sequence[Record]
    scores: Sequence[Record]
    live: bool
    told: str = ""

    @property
    def status(self) -> str:
        """How far it is, in words."""
        done = self.steps[-1]["step"] if self.steps else 0
        planned = self.settings.get("train.steps")
        limited = any(_number(self.settings.get(name)) and self.settings[name] > 0 for name in LIMITS)
        place = f"{done} of {planned}" if isinstance(planned, int) and not limited else f"{done}"
        if self.live:
            return f"running, step {place}"
        if self.told == "finished":
            return f"finished, {done} steps"
        if self.told in ("failed", "left"):
            return f"{'failed' if self.told == 'failed' else 'stopped'} at step {place}"
        if limited:
            ended = _at_limit(self.settings, self.steps)
            return f"ended after {done} steps, by its limit" if ended else f"stopped at step {done}, before its limit"
        if not isinstance(planned, int):
            return f"step {done}"
        return f"finished, {done} steps" if done >= planned else f"stopped at step {place}"


def _at_limit(settings: Mapping[str, Any], steps: Sequence[Record]) -> bool:
    """Whether a run ends where it is because of what it has spent, as it would find when it is resumed."""
    from igrpo_jax.learning.spending import Spending

    try:
        config = Config()
        for section in ("train", "algorithm"):
            usual = to_dict(getattr(config, section))
            said = {name: settings.get(f"{section}.{name}") for name in usual}
            numbers = {n: type(usual[n])(value) for n, value in said.items() if _number(value) and _number(usual[n])}
            config = replace(config, **{section: replace(getattr(config, section), **numbers)})
        return bool(steps) and Spending(config, steps).steps(steps[-1]["step"]) == steps[-1]["step"]
    except (TypeError, ValueError, ArithmeticError):  # metrics or settings that no run has written
        return False


def read_run(workdir: Path, name: str, say: Callable[[str], None], arm: str = "", told: str = "") -> Recorded | None:
    """One run; None, and a line, where there is nothing to show.

    Args:
      workdir: its directory.
      name: what to call it.
      say: gets a line for everything that is left out.
      arm, told: see `Recorded`.
    """
    about = lambda line: say(f"{name}: {line}")
    if not workdir.is_dir():
        about("left out, there is no such directory")
        return None
    settings = _settings(workdir, about)
    metrics = _records(workdir / "metrics.jsonl", about)
    scores = {settings_of(r): r for r in _records(workdir / "eval.jsonl", about) if _is_score(r, about)}
    steps = {record["step"]: record for record in metrics if _number(record.get("reward"))}
    evaluations = [record for record in metrics if any(key.startswith("eval/") for key in record)]
    if not (steps or evaluations or scores):
        about("left out, it has no metrics.jsonl with a step or an evaluation in it")
        return None
    return Recorded(
        name,
        arm or name,
        workdir,
        settings,
        [steps[step] for step in sorted(steps)],
        evaluations,
        list(scores.values()),
        lives(workdir),
        told,
    )


def living(workdirs: Sequence[Path]) -> bool:
    """Whether a run is writing in one of these directories, or in one of the runs of a study there."""
    return any(lives(workdir) or any(map(lives, workdir.glob("*/seed-*"))) for workdir in workdirs)


def names_of(workdirs: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart, ready to be shown.

    >>> names_of([Path("runs/a"), Path("old/a"), Path("runs/b")])
    ['runs/a', 'old/a', 'b']
    """
    resolved = [path.resolve() for path in workdirs]
    depth = [1] * len(resolved)
    while True:
        names = ["/".join(path.parts[-n:]) for path, n in zip(resolved, depth, strict=True)]
        twice = {name for name, count in Counter(names).items() if count > 1}
        longer = [
            min(n + (name in twice), len(path.parts)) for n, name, path in zip(depth, names, resolved, strict=True)
        ]
        if longer == depth:
            return [printable(name).replace("\n", "\\n") for name in names]
        depth = longer


def differences(runs: Sequence[Recorded]) -> list[str]:
    """Names of the settings that make these runs different experiments; those that change nothing are no difference."""
    names = {name for run in runs if run.settings for name in run.settings}
    known = [run.settings for run in runs if run.settings]
    free = (*FREE, "seed")
    return sorted(n for n in names if not n.startswith(free) and len({repr(s.get(n)) for s in known}) > 1)


def _settings(workdir: Path, say: Callable[[str], None]) -> dict[str, Any]:
    try:
        record = recorded(workdir)
    except ValueError as error:
        say(f"its config is left out: {error}")
        return {}
    if record is None:
        say("its config is left out, config.json is missing")
        return {}
    sources = record.get("data")
    # What an older run's config does not name had its default.
    found = fields(json.loads(json.dumps(to_dict(Config())))) | fields(record["config"])
    found |= {f"architecture.{name}": v for name, v in record["architecture"].items()}
    if isinstance(sources, dict):
        found |= {f"source.{name}": value for name, value in sources.items()}
    return found


def _records(path: Path, say: Callable[[str], None]) -> list[Record]:
    try:
        return read_records(path, say)
    except (ValueError, OSError) as error:
        say(f"{path.name} is left out: {error}")
        return []


def _is_score(record: Record, say: Callable[[str], None]) -> bool:
    whole = isinstance(record.get("set"), str) and isinstance(record.get("scores"), dict)
    if not whole:
        say(f"a line of eval.jsonl (step {record['step']}) is left out, it names no set or has no scores")
    return whole


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_json(path: Path, say: Callable[[str], None]) -> Record:
    """A file that holds one JSON object; empty, and a line, where it does not."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (ValueError, OSError, RecursionError) as error:
        say(f"{path.name} is left out: {error}")
        return {}
    if not isinstance(found, dict):
        say(f"{path.name} is left out, {'it is no object' if found is not None else 'it is missing'}")
        return {}
    return found
