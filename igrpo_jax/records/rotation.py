"""Samples in files of bounded size: when one is full the next begins, and the oldest go when there is no room.

What is kept hangs on steps and sizes alone, so a run that is killed and resumed ends with the same files; unless there
was no room for the samples of all steps since the checkpoint that it resumes from.
"""

import re
from pathlib import Path

PARTS = 8
"""Files that the space is divided into; samples of about a PARTS-th of it are dropped at once."""

_NAME = re.compile(r"samples(?:-(\d+))?\.jsonl")


def parts(workdir: Path) -> list[Path]:
    """The files of a run's samples that are there, oldest first: samples.jsonl, then samples-<first step>.jsonl."""
    found = [
        (int(name[1] or 0), path) for path in workdir.glob("samples*.jsonl") if (name := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


class Rotation:
    """Says into which file samples go, and removes what there is no room for.

    Args:
      workdir: the run's directory, after what is to be forgotten is.
      limit: bytes of all files together; 0 is without bound.
    """

    def __init__(self, workdir: Path, limit: int):
        self._workdir, self._limit = workdir, limit
        self._sizes = {path: path.stat().st_size for path in parts(workdir)}

    def place(self, step: int, size: int) -> Path:
        """The file for so many bytes of samples of a step; they count as written."""
        newest = next(reversed(self._sizes), self._workdir / "samples.jsonl")
        taken = self._sizes.get(newest, 0)
        if self._limit and taken and taken + size > self._limit // PARTS:
            newest, taken = self._workdir / f"samples-{step}.jsonl", 0
        self._sizes[newest] = taken + size
        while self._limit and len(self._sizes) > 1 and sum(self._sizes.values()) > self._limit:
            oldest = next(iter(self._sizes))
            oldest.unlink(missing_ok=True)
            del self._sizes[oldest]
        return newest
