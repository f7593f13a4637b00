"""Samples packed for the page's reader: columns to filter by, and texts in compressed chunks, opened as needed."""

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from igrpo_jax.edges.printable import printable
from igrpo_jax.records.lines import each_record
from igrpo_jax.records.rotation import parts
from igrpo_jax.report.runs import Record, Recorded
from igrpo_jax.report.series import is_number

BUDGET = 192 << 20
"""Bytes of records in a page; of more, only every second, third, ... record is taken."""

CHUNK = 1 << 19
"""Bytes of records that are compressed, and opened, together."""

EXCERPT = 110
"""Characters of a question in the list."""

FILTERS = {
    "fixed": "wrong draft, right refinement",
    "broken": "right draft, wrong refinement",
    "copied": "refinement repeats the draft",
    "no spread": "all answers are worth the same",
    "timeout": "grading took too long",
    "error": "grading failed",
    "cut off": "reached the limit of tokens",
    "all right": "all answers are right",
    "all wrong": "no answer is right",
}
"""What the list is filtered by, bit by bit; answers are those of `answers_of`."""

FAILED = ("error", "memory", "bad_gold", "judge")
"""Beginnings of reasons that say nothing of the completion."""


class Packed(NamedTuple):
    """Samples of all runs.

    Attributes:
      index: JSON-ready columns, a value a sample, and what they stand for.
      packed_index: the same, compressed.
      chunks: compressed texts; `index["starts"]` says with which sample each begins.
      count: samples in the page.
      left_out: samples that are not, for want of room.
    """

    index: Mapping[str, Any]
    packed_index: str
    chunks: Sequence[str]
    count: int
    left_out: int


def pack(runs: Sequence[Recorded], say: Callable[[str], None], budget: int = BUDGET) -> Packed:
    """The samples of all runs, thinned evenly where they are too many.

    Args:
      runs: whose.
      say: gets a line for what is left out.
      budget: bytes of records that there is room for.
    """
    files = [(run, path, source) for run in runs for path, source in _files(run)]
    every = max(-(-sum(_size(path) for _, path, _ in files) // budget), 1)
    names, sources = [run.name for run in runs], list(dict.fromkeys(source for *_, source in files))
    columns: dict[str, list[Any]] = {name: [] for name in ("run", "source", "step", "flags", "reward", "excerpt")}
    chunks, starts, lines, size, seen = [], [], [], 0, 0
    for run, path, source in files:
        for record in _whole(path, run.name, say):
            seen += 1
            if (seen - 1) % every:
                continue
            if not size:
                starts.append(len(columns["run"]))
            for name, value in _columns(record).items():
                columns[name].append(value)
            columns["run"].append(names.index(run.name))
            columns["source"].append(sources.index(source))
            lines.append(_line(record))
            size += len(lines[-1])
            if size > CHUNK:
                chunks.append(_compressed(b"[" + b",".join(lines) + b"]"))
                lines, size = [], 0
    if lines:
        chunks.append(_compressed(b"[" + b",".join(lines) + b"]"))
    count = len(columns["run"])
    if count < seen:
        say(f"samples: {count:,} of {seen:,} are in the page, one in {every}; all are in the run's directory")
    index = columns | {"starts": starts, "runs": names, "sources": sources, "filters": FILTERS, "count": count}
    return Packed(index, _compressed(json.dumps(index).encode()), chunks, count, seen - count)


def _files(run: Recorded) -> Iterator[tuple[Path, str]]:
    """Files of samples with what they are of: training, or an evaluation's set and mode."""
    yield from ((path, "training") for path in parts(run.workdir) if path.is_file())
    for path in sorted((run.workdir / "generations").glob("*.jsonl")):
        if path.is_file():
            yield path, "evaluation " + printable(unquote(re.sub(r"^step-\d+-", "", path.stem)))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a run that goes on has just dropped it
        return 0


def _whole(path: Path, name: str, say: Callable[[str], None]) -> Iterator[Record]:
    """Records that the reader can show."""
    others = 0
    try:
        for record in each_record(path, lambda line: say(f"{name}: {line}")):
            if _is_sample(record):
                yield record
            else:
                others += 1
    except (OSError, ValueError) as error:
        say(f"{name}: {path.name} is left out: {error}")
    if others:
        say(f"{name}: {others} records of {path.name} are left out, they have no stages of completions")


def _is_sample(record: Record) -> bool:
    stages = record.get("stages")
    return (
        isinstance(record.get("question"), str)
        and isinstance(stages, list)
        and bool(stages)
        and all(map(_is_stage, stages))
    )


def _is_stage(stage: Any) -> bool:
    found = stage.get("completions") if isinstance(stage, dict) else None
    return (
        isinstance(found, list)
        and bool(found)
        and all(isinstance(c, dict) and isinstance(c.get("text"), str) for c in found)
    )


def _columns(record: Record) -> dict[str, Any]:
    rewards = [c["reward"] for c in answers_of(record) if is_number(c.get("reward"))]
    holds = flags(record)
    return {
        "step": record["step"],
        "flags": sum(1 << bit for bit, name in enumerate(FILTERS) if holds[name]),
        "reward": round(sum(rewards) / len(rewards), 3) if rewards else None,
        "excerpt": " ".join(record["question"][: 4 * EXCERPT].split())[:EXCERPT],
    }


def flags(record: Record) -> dict[str, bool]:
    """Which of `FILTERS` hold of a sample."""
    every = [c for stage in record["stages"] for c in stage["completions"]]
    answers = answers_of(record)
    reasons = [str(c.get("reason", "")) for c in every]
    pairs = [(d, c) for stage in record["stages"] if (d := draft_of(record, stage)) for c in stage["completions"]]
    judged = [(d["right"], c["right"]) for d, c in pairs if isinstance(d.get("right"), bool) and "right" in c]
    return {
        "fixed": any(after and not before for before, after in judged),
        "broken": any(before and not after for before, after in judged),
        "copied": any(c["text"].strip() == d["text"].strip() for d, c in pairs if isinstance(d.get("text"), str)),
        "no spread": len(answers) > 1 and len({c.get("reward") for c in answers}) == 1,
        "timeout": any(reason.startswith("timeout") for reason in reasons),
        "error": any(reason.startswith(FAILED) for reason in reasons),
        "cut off": any(c.get("ended") is False for c in every),
        "all right": all(c.get("right") is True for c in answers),
        "all wrong": all(c.get("right") is False for c in answers),
    }


def answers_of(record: Record) -> list[Record]:
    """The completions that count: of the last stage, or all where bare answers were drawn in several portions."""
    stages = record["stages"] if record.get("mode") == "bare" else record["stages"][-1:]
    return [completion for stage in stages for completion in stage["completions"]]


def draft_of(record: Record, stage: Record) -> Record | None:
    """The completion that stood in a stage's prompts: of an earlier stage, or an earlier step's that was kept."""
    draft = stage.get("draft")
    if isinstance(draft, dict):
        return draft
    if isinstance(draft, list) and len(draft) == 2:
        for other in record["stages"]:
            if (
                other.get("stage") == draft[0]
                and isinstance(draft[1], int)
                and 0 <= draft[1] < len(other["completions"])
            ):
                return other["completions"][draft[1]]
    return None


def _line(record: Record) -> bytes:
    """A record as JSON without what the index says; half a surrogate pair, which UTF-8 cannot hold, makes it ASCII."""
    kept = {name: value for name, value in record.items() if name != "step"}
    try:
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(kept, separators=(",", ":")).encode()


def _compressed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, compresslevel=5, mtime=0)).decode()
