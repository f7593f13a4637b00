"""Records as JSON Lines: damage costs the line that has it, and no other."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from igrpo_jax.records.writer import replace_whole

_DECODER = json.JSONDecoder()


def encoded(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Records as lines of UTF-8; half a surrogate pair, which UTF-8 cannot hold, makes its line ASCII."""
    lines = []
    for record in records:
        try:
            lines.append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        except UnicodeEncodeError:
            lines.append(json.dumps(record).encode() + b"\n")
    return b"".join(lines)


def read_records(path: Path, say: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """All whole records of a file, oldest first; others are left out.

    Args:
      path: of the file; where there is none, there are no records.
      say: gets a line if any is damaged. A last line without its end is what a kill leaves, and is no damage.
    """
    return list(each_record(path, say))


def each_record(path: Path, say: Callable[[str], None] | None = None) -> Iterator[dict[str, Any]]:
    """As `read_records`, one after the other: for files that are too large for memory."""
    return (record for record, _ in _read(path, say))


def forget(path: Path, *, after: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Drops records of steps after `after`, and damaged lines, atomically; gives those that are kept.

    Raises:
      OSError: the file cannot be read or written; it stays as it was.
    """
    kept = [(record, line) for record, line in _read(path, say) if record["step"] <= after]
    data = b"".join(line + b"\n" for _, line in kept)
    if path.exists() and path.read_bytes() != data:
        replace_whole(path, data)
    return [record for record, _ in kept]


def _read(path: Path, say: Callable[[str], None] | None) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Records with their bytes."""
    if not path.exists():
        return
    if not path.is_file():
        raise ValueError(f"{path} is no plain file; move it away")  # to read a pipe would be to wait for ever
    damaged = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line, ended = line.removesuffix(b"\n"), line.endswith(b"\n")
            found = list(_records_in(line))
            yield from found
            if ended and line and b"".join(text for _, text in found) != line:
                damaged.append(number)
    if damaged and say:
        some = ", ".join(map(str, damaged[:5])) + (f" and {len(damaged) - 5} more" if len(damaged) > 5 else "")
        say(f"warning: {path}, line {some}: damaged; what cannot be read of it is left out, all else is kept")


def _records_in(line: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The record of a line; two with one byte between them where the end of a line is what is damaged."""
    text, begin = line.decode(errors="surrogateescape"), 0
    while begin < len(text):
        try:
            record, end = _DECODER.raw_decode(text, begin)
            data = text[begin:end].encode()  # an error where it is no UTF-8
        except (ValueError, RecursionError):
            return
        step = record.get("step") if isinstance(record, dict) else None
        if not isinstance(step, int) or isinstance(step, bool):
            return
        yield record, data
        begin = end + 1
