"""Checksums of a folder's files, written beside them, by which damage is noticed before anything is loaded.

CRC-32 and the length: they find accidents (a flipped bit, a block of zeros, a file cut short), not forgery, and are
read off at several GB/s, so that checking costs little beside reading.
"""

import json
import os
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NAME = "checksums.json"

_BLOCK = 1 << 22


def write_checksums(folder: Path) -> None:
    """Writes `checksums.json` with length and CRC-32 of every file in a folder and the folders in it; on disk when it
    returns.

    Raises:
      OSError: something cannot be read or written.
    """
    files = {str(file.relative_to(folder)): list(_measured(file)) for file in _files(folder)}
    part = folder / f".{NAME}.part"
    with part.open("w", encoding="utf-8") as opened:
        opened.write(json.dumps({"crc32": files, "of": zlib.crc32(_canonical(files))}) + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(folder / NAME)


def read_checksums(folder: Path) -> dict[str, tuple[int, int]] | None:
    """Length and CRC-32 by file, as written; None where there is no such file.

    Raises:
      ValueError: the list itself is damaged.
    """
    path = folder / NAME
    if not os.path.lexists(path):
        return None
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        if record["of"] == zlib.crc32(_canonical(record["crc32"])):
            return {name: (size, crc) for name, (size, crc) in record["crc32"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError(f"{NAME} is damaged")


def damage(folder: Path, name: str, size: int, crc: int) -> str | None:
    """What is wrong with one file of a folder, in few words; None where it is as it was written."""
    path = folder / name
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            return f"{name} is no file"
        if info.st_size != size:
            return f"{name} has {info.st_size} bytes of {size}"
        return None if _measured(path)[1] == crc else f"{name} has another checksum"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"


def _canonical(files: dict[str, Any]) -> bytes:
    return json.dumps(files, sort_keys=True).encode()


def _files(folder: Path) -> Iterable[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in (NAME, f".{NAME}.part"))


def _measured(file: Path) -> tuple[int, int]:
    size = crc = 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc
