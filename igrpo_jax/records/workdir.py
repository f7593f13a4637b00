"""A run's directory belongs to one experiment: config.json says to which."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config, fields, to_dict
from igrpo_jax.edges.printable import printable
from igrpo_jax.records.writer import replace_whole, sweep

COPY = "config.copy.json"
"""What config.json says once more, for the day on which that is damaged."""

FREE = (
    *("model.remat", "model.flash", "model.export_dtype", "data.eval", "sampling.rows"),
    *("reward.workers", "reward.deadline", "reward.memory_mb", "reward.call_deadline", "reward.errors"),
    *("judge.base_url", "judge.timeout", "judge.retries", "judge.concurrency", "judge.max_failures", "judge.cache"),
    *("train.steps", "train.micro_batch", "train.logprob_chunk", "train.save_every", "train.keep", "train.eval_every"),
    *("train.max_skipped", "train.max_sampled_tokens", "train.max_trained_tokens", "train.max_seconds"),
    *("train.sample_rows", "train.samples_mb", "train.report", "train.export", "eval."),
)
"""Fields, and sections with their dot, that may change when a run is resumed: they are no part of what it learns.

`train.steps` and its limits are, for the learning rate's schedule follows them from there on; but a run may go on for
longer. So are deadlines and `reward.errors`, which say what a grading is worth that fails; without them such a run
would have ended.
"""


def claim(workdir: Path, config: Config, architecture: Any, data: Mapping[str, tuple[int, str]] | None = None) -> None:
    """Writes config.json into the run's directory, or checks the one that is there.

    Args:
      workdir: the run's directory.
      config: what is to run.
      architecture: the model's.
      data: each source's number of problems and fingerprint, see `igrpo_jax.data.Data`.

    Raises:
      ValueError: the directory cannot be written or is something else, holds a run of another model, or checkpoints of
        another experiment.
    """
    path = workdir / "config.json"
    mine, theirs = _record(config, architecture, data or {}), recorded(workdir)
    changes = [] if theirs is None else _compared(workdir, theirs, mine)
    others = [change for change in changes if not change.startswith(FREE)]
    begun = any(entry.name.isdecimal() for entry in (workdir / "checkpoints").glob("*"))
    if begun and theirs is None:
        raise ValueError(
            f"{path} is missing beside checkpoints, so nobody knows what they are of; {_way_back(workdir)}"
        )
    if others and begun:
        raise ValueError(
            f"{workdir} holds checkpoints of another experiment ({', '.join(others)}); choose another --workdir"
        )
    for change in changes:
        print(printable(f"resuming with a changed config: {change}"))
    for change in changed_data((theirs or {}).get("data", {}), mine["data"]):
        warning = "warning: not exactly the same run, " if begun else ""
        print(printable(f"{warning}resuming with changed data: {change}"))
    try:
        _check_places(workdir, export=config.train.export, ours=theirs is not None)
        workdir.mkdir(parents=True, exist_ok=True)
        sweep(workdir, ("config.json", COPY, "metrics.jsonl", "samples.jsonl", "samples-*.jsonl", "eval.jsonl"))
        text = (json.dumps(mine, indent=2) + "\n").encode()
        for place in (workdir / COPY, path):
            if place.exists() and not place.is_file():
                raise ValueError(f"{place} is no plain file; move it away")  # to read a pipe would be to wait for ever
            if not place.exists() or place.read_bytes() != text:
                replace_whole(place, text)
    except OSError as error:
        raise ValueError(f"--workdir {workdir} cannot be written ({error.strerror}); choose another") from error


def recorded(workdir: Path) -> dict[str, Any] | None:
    """What config.json says of the run in a directory; None where there is none.

    Raises:
      ValueError: the file is another's, a model's say, or damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise OSError("no file")  # to read a pipe would be to wait for ever
        record = json.loads(path.read_text(encoding="utf-8"))
        ours = isinstance(record, dict) and isinstance(record.get("architecture"), dict) and _of_data(record)
        if ours and isinstance(record["config"]["model"]["source"], str) and fields(record["config"]):
            return record
    except (OSError, ValueError, RecursionError) as error:  # text that is not UTF-8 is a ValueError, too
        raise ValueError(
            f"{path} cannot be read ({error}); if it is a run's, {_way_back(workdir)}; else choose another --workdir"
        ) from error
    except (KeyError, TypeError):
        pass
    raise ValueError(f"{path} is not that of a run ({_guess(record)}); choose another --workdir, for runs alone")


def _of_data(record: dict[str, Any]) -> bool:
    """Whether what a record says of data, if anything, is a number and a fingerprint a source."""
    data = record.get("data", {})
    pairs = data.values() if isinstance(data, dict) else [None]
    return all(isinstance(pair, list) and [type(value) for value in pair] == [int, str] for pair in pairs)


def _way_back(workdir: Path) -> str:
    """What to do about a config.json that is damaged or lost; guessing would be to go on with other values."""
    copy = workdir / COPY
    back = f"put it back (cp {copy} {workdir / 'config.json'})" if copy.is_file() else "put it back from a copy"
    return f"{back}, or move the directory away to begin again"


def _guess(record: Any) -> str:
    known = isinstance(record, dict) and ("model_type" in record or "architectures" in record)
    return "it describes a model, which goes to --model.source" if known else "it has no config and architecture"


def compare_run(workdir: Path, config: Config, architecture: Any, *, say: Callable[[str], None]) -> None:
    """Says in what a config that must not change differs from that of the run in a directory; for jobs that only read.

    Raises:
      ValueError: the directory is something else, or holds a run of another model.
    """
    record = recorded(workdir)
    for change in [] if record is None else _compared(workdir, record, _record(config, architecture, {})):
        if not change.startswith(FREE):
            say(f"with another config than the run's: {change}")


def _record(config: Config, architecture: Any, data: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """What config.json says, as JSON gives it back."""
    record = {"config": to_dict(config), "architecture": dataclasses.asdict(architecture), "data": dict(data)}
    return json.loads(json.dumps(record))


def _compared(workdir: Path, theirs: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    """The config's changes since what is recorded, of a run of the same model."""
    if theirs["architecture"] != mine["architecture"]:
        raise ValueError(
            f"{workdir} holds a run of another model ({theirs['config']['model']['source']}); "
            "choose another --workdir or delete that one"
        )
    return changed(theirs["config"], mine["config"])


def _check_places(workdir: Path, *, export: bool, ours: bool) -> None:
    """Refuses what would be in the way only after training; in a run's own directory a damaged log is still its log."""
    for name in ("checkpoints", "tensorboard", "generations", *(["export"] if export else [])):
        path = workdir / name
        if path.is_symlink() and not path.exists():
            raise ValueError(f"{path} is a link to nowhere; delete it, or choose another --workdir")
        if path.exists() and not (path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
            raise ValueError(f"{path} is in the way: no directory, or not to be written; move it, or choose another")
    check_logs(workdir, ("metrics.jsonl", "samples.jsonl", "eval.jsonl"), ours=ours)


def check_logs(workdir: Path, names: Sequence[str], *, ours: bool = False) -> None:
    """Refuses a directory in which files of these names are not what a run writes.

    Raises:
      ValueError: names the file.
    """
    for name in names:
        path = workdir / name
        if path.exists() and not (path.is_file() and (ours or _is_log(path))):
            raise ValueError(f"{path} is not that of a run, which would write over it; choose another --workdir")


def _is_log(path: Path) -> bool:
    """Whether a file holds what a run has written there: nothing, half a line, or records that begin with a step."""
    with path.open("rb") as file:
        line = file.readline()
    return line in (b"", b"\n") or line.startswith(b'{"step": ')


def changed_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`source: what changed` of every source that has other problems than when it was recorded.

    >>> changed_data({"file:a": [16, "x"], "file:b": [3, "y"]}, {"file:a": [8, "z"], "file:b": [3, "w"]})
    ['file:a: 16 usable problems -> 8', 'file:b: other problems, or in another order']
    """
    said = []
    for name, (count, fingerprint) in new.items():
        before, seen = old.get(name, (count, fingerprint))
        if before != count:
            said.append(f"{name}: {before} usable problems -> {count}")
        elif seen != fingerprint:
            said.append(f"{name}: other problems, or in another order")
    return said


def changed(old: dict, new: dict) -> list[str]:
    """`section.field: old -> new` of every field that differs; one that the old dict does not know had its default."""
    before = fields(json.loads(json.dumps(to_dict(Config())))) | fields(old)
    return [f"{name}: {before[name]!r} -> {value!r}" for name, value in fields(new).items() if before[name] != value]
