"""A study's directory: study.json says what is compared and how far each run is, so that any of it can be resumed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from igrpo_jax.config import Config, fields, to_dict
from igrpo_jax.learning.spending import LIMITS
from igrpo_jax.records.lease import NAME as LEASE
from igrpo_jax.records.workdir import FREE
from igrpo_jax.records.writer import replace_whole, sweep
from igrpo_jax.study.config import Study

NAME = "study.json"

Status = Literal["waiting", "running", "left", "failed", "finished"]
"""Of a run: not begun, begun, told to leave, ended with an error, ended."""

_FIXED = ("data.eval", "eval.", "train.steps", "train.eval_every", *(f"train.{field}" for field in LIMITS.values()))
"""What a run may change when it is resumed, but not the runs of a study, which would not be comparable any more."""


class Run(NamedTuple):
    """One arm with one seed."""

    arm: str
    seed: int

    @property
    def workdir(self) -> Path:
        """Where it runs, in the study's directory."""
        return Path(self.arm) / f"seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"


class Root:
    """A study's directory, claimed by it."""

    def __init__(self, directory: Path, name: str, study: Study, configs: Mapping[str, Config], seeds: Sequence[int]):
        """Takes up what is there: finished runs stay so, all others are to be run.

        Args:
          directory: made where there is none.
          name: of the study.
          study: what is compared.
          configs: of the arms.
          seeds: to run; those that the directory knows already stay in the study.

        Raises:
          ValueError: the directory is another study's, a run's, or cannot be written.
        """
        self.directory, self._name, self._study, self._configs = directory, name, study, configs
        before = _recorded(directory, {*study.arms, "comparison.json", "comparison.md", "report", LEASE})
        known = {Run(one["arm"], one["seed"]): one["status"] for one in before["runs"]} if before else {}
        if before:
            _check_same(directory, before, name, study, configs, [run for run, s in known.items() if s != "waiting"])
        seeds = list(dict.fromkeys([*seeds, *(run.seed for run in known if run.arm in study.arms)]))
        self.seeds = seeds
        self.status: dict[Run, Status] = {}
        for run in (Run(arm, seed) for seed in seeds for arm in study.arms):
            there = (directory / run.workdir / "metrics.jsonl").is_file()
            self.status[run] = "finished" if known.get(run) == "finished" and there else "waiting"
            if self.status[run] == "waiting" and there:
                self.status[run] = "left"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            sweep(directory, (NAME,))
            self._write()
        except OSError as error:
            raise ValueError(f"--workdir {directory} cannot be written ({error.strerror}); choose another") from error

    def mark(self, run: Run, status: Status) -> None:
        """Says how far a run is."""
        self.status[run] = status
        self._write()

    def _write(self) -> None:
        arms = {
            name: {"label": arm.label or name, "overrides": dict(arm.overrides), "paper": dict(arm.paper)}
            for name, arm in self._study.arms.items()
        }
        runs = [
            {"arm": run.arm, "seed": run.seed, "workdir": run.workdir.as_posix(), "status": status}
            for run, status in self.status.items()
        ]
        study = self._study
        record = {"name": self._name, "title": study.title, "baseline": study.baseline, "budget": study.budget}
        record |= {"metrics": list(study.metrics), "source": study.source, "seeds": self.seeds, "arms": arms}
        record |= {"runs": runs, "config": to_dict(study.config), "steps": self._steps()}
        write_json(self.directory / NAME, record)

    def _steps(self) -> dict[str, int]:
        return {name: config.train.steps for name, config in self._configs.items()}


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record, the old file staying until the new one is whole."""
    replace_whole(path, (json.dumps(record, indent=2) + "\n").encode())


def _recorded(directory: Path, ours: set[str]) -> dict[str, Any] | None:
    """What study.json says; None in a new directory, and in one that has lost it and holds nothing but what is ours."""
    path = directory / NAME
    if not path.exists():
        there = directory.iterdir() if directory.is_dir() else ()
        if any(one.name not in ours and not one.name.startswith(".") for one in there):
            what = "a run" if (directory / "config.json").exists() else "something else"
            raise ValueError(f"{directory} holds {what} and no study; choose another --workdir")
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(record["name"], str) and isinstance(record["budget"], str) and record["baseline"]
        assert all({"arm", "seed", "status"} <= run.keys() for run in record["runs"])
        assert all(isinstance(arm["overrides"], dict) for arm in record["arms"].values()) and fields(record["config"])
        assert record["steps"].keys() == record["arms"].keys()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"{path} is damaged; delete it and give the same command again: runs go on where they are"
        ) from error
    return record


def _check_same(
    directory: Path,
    before: Mapping[str, Any],
    name: str,
    study: Study,
    configs: Mapping[str, Config],
    begun: Sequence[Run],
) -> None:
    """Refuses a directory whose runs would not be comparable with those to come."""
    if before["name"] != name:
        raise ValueError(f"{directory} holds the study {before['name']!r} and not {name!r}; choose another --workdir")
    if not begun:
        return
    changes = [
        f"{what}: {before[what]} -> {now}"
        for what, now in {"budget": study.budget, "baseline": study.baseline}.items()
        if before[what] != now
    ]
    for arm in dict.fromkeys(run.arm for run in begun):
        if arm not in configs:
            changes.append(f"no arm {arm!r} any more")
            continue
        its = before["arms"][arm]["overrides"] | {"train.steps": before["steps"][arm]}
        old = fields(_plain(to_dict(Config()))) | fields(before["config"]) | its
        new = fields(_plain(to_dict(configs[arm])))
        changes += [
            f"{arm} {field}: {old[field]} -> {value}"
            for field, value in new.items()
            if field != "seed" and old[field] != value and (field.startswith(_FIXED) or not field.startswith(FREE))
        ]
    if changes:
        raise ValueError(f"{directory} holds runs of another study ({'; '.join(changes)}); choose another --workdir")


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON gives it back."""
    return json.loads(json.dumps(record))
