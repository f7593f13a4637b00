"""Whole runs through launch.py: how two processes of one meet, what of their records lasts, disks that are full."""

import json
import os
import socket
from pathlib import Path

FLEETING = ("time/", "tokens_per_s/", "step_time", "memory/", "compile/", "sampling/row_", "train/padding_", "devices")
"""How names of metrics begin that differ from run to run or mesh to mesh: times, memory, compilations, padding."""


def together() -> list[list[str]]:
    """The arguments by which two processes on this machine become one run, for each of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [["--coordinator", address, "--num-processes", "2", "--process-id", str(index)] for index in range(2)]


def records(workdir: Path, name: str = "metrics.jsonl") -> list[dict]:
    """All records of a run, whole."""
    return [json.loads(line) for line in (workdir / name).read_text(encoding="utf-8").splitlines()]


def lasting(record: dict) -> dict:
    """A record without what is `FLEETING`."""
    return {name: value for name, value in record.items() if not name.startswith(FLEETING)}


def fill(folder: Path, leave: int = 0) -> Path:
    """Takes all room of a small file system but so many bytes; the file that has it."""
    path, space = folder / "filling", os.statvfs(folder)
    size = max(space.f_bavail * space.f_frsize - leave, 0)
    with path.open("wb") as file:
        while size:
            step = min(size, 1 << 20)
            file.write(bytes(step))
            size -= step
    return path
