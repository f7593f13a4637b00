"""Evaluations in a run's directory: eval.jsonl has a line a set and mode, and generations/ all that was sampled.

An evaluation that is made again, because a run was killed in it or somebody asked twice, replaces the earlier one of
the same settings.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from igrpo_jax.records.lines import encoded, forget, read_records
from igrpo_jax.records.writer import Writer, replace_whole

FILE, FOLDER = "eval.jsonl", "generations"

RESULTS = ("scores", "by_problem", "sampled_tokens", "n", "generations")
"""What comes of an evaluation; all other keys of its line are its settings."""


class Evaluations:
    """Writes evaluations into a directory; what cannot be written is said, and stops nothing."""

    def __init__(self, workdir: Path, writer: Writer, say: Callable[[str], None]):
        """Learns which evaluations there are.

        Args:
          workdir: the run's directory.
          writer: appends lines to files.
          say: gets a line where something cannot be written, or what is there is damaged.
        """
        self._workdir, self._writer, self._say = workdir, writer, say
        self._files = {settings(line): line.get("generations") for line in read_records(workdir / FILE, say)}

    def record(self, step: int, line: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
        """Records an evaluation after `step` steps: its line, without step, and all samples, each a `sample_record`."""
        line = {"step": step} | dict(line)
        same = settings(line)
        known, file = same in self._files, self._files.get(same) or self._unused(line)
        try:
            write_generations(self._workdir / file, ({"step": step, "set": line["set"]} | dict(r) for r in records))
            if known:
                drop(self._workdir / FILE, same)
        except OSError as error:
            self._say(f"warning: {self._workdir / file} cannot be written ({error.strerror}); the scores are kept")
        self._files[same] = file
        self._writer.append({self._workdir / FILE: encoded([line | {"generations": file}])})

    def _unused(self, line: Mapping[str, Any]) -> str:
        """A file for the samples that no evaluation of other settings has."""
        names = (f"{FOLDER}/{generations_name(line, number)}" for number in itertools.count(1))
        return next(name for name in names if name not in self._files.values())


def settings(line: Mapping[str, Any]) -> str:
    """What a line says but for the results: two of the same settings are the same evaluation."""
    return json.dumps({name: value for name, value in line.items() if name not in RESULTS}, sort_keys=True)


def generations_name(line: Mapping[str, Any], number: int = 1) -> str:
    """The file of the samples of an evaluation; a number tells those apart that differ in other settings.

    >>> generations_name({"step": 8, "set": "a/b", "mode": "refined", "select": "best"}, 2)
    'step-8-a%2Fb-refined-best-2.jsonl'
    """
    parts = [f"step-{line['step']}", quote(line["set"], safe=""), line["mode"], line.get("select")]
    return "-".join(filter(None, [*parts, str(number) if number > 1 else None])) + ".jsonl"


def write_generations(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes a file of samples, whole or not at all.

    Raises:
      OSError: it cannot be written; an earlier one is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for record in records:
                file.write(encoded([record]))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def drop(path: Path, same: str) -> None:
    """Drops the lines of an evaluation of these settings.

    Raises:
      OSError: the file cannot be written; it stays as it was.
    """
    replace_whole(path, encoded([line for line in read_records(path) if settings(line) != same]))


def forget_evaluations(workdir: Path, *, after: int, say: Callable[[str], None]) -> None:
    """Drops the evaluations of steps after `after`, which will be made again, and what a killed run has half written.

    Raises:
      OSError: the directory cannot be written.
    """
    forget(workdir / FILE, after=after, say=say)
    for path in (workdir / FOLDER).glob("step-*.jsonl*"):
        step = path.name.split("-")[1]
        if path.name.endswith(".part") or (step.isdecimal() and int(step) > after):
            path.unlink()


def read_evaluations(workdir: Path) -> list[dict[str, Any]]:
    """The lines of eval.jsonl, in the order in which they were written; of the same evaluation the last one."""
    lines = {settings(line): line for line in read_records(workdir / FILE)}
    return list(lines.values())
