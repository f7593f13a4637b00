"""Whole runs through launch.py: how two processes of one meet, and which of their records are the same every time."""

import json
import socket
from pathlib import Path

FLEETING = ("time/", "tokens_per_s/", "step_time", "memory/", "compile/", "sampling/row_", "train/padding_")
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
