"""Whether `--job plan` foretells the memory of a run: its peak beside that of a real run of two steps on CPU.

    make bench BENCHMARKS=benchmarks/peak.py PEERS=none

A CPU has no count of its devices' bytes, so the process is measured, and what a run of the tiny model takes, whose
arrays are nothing, is taken off: Python, libraries, compilers, workers. The allocator gives back what is freed here,
unlike with `launch.py`'s own settings, under which a process keeps what it once had. Prints one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.worker import versions

RETURNING = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1", "JAX_PLATFORMS": "cpu"}
"""Environment in which freed memory goes back."""


def main() -> None:
    """Plans, runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="quickstart.py", help="as --config of launch.py")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        launch(place / "plan", "--job", "plan", "--config", options.config, *more)
        planned = max(json.loads((place / "plan" / "plan.json").read_text())["peak_bytes"].values())
        beside = peak(place / "tiny", "--config", "smoke.py")
        measured = peak(place / "run", "--config", options.config, *more) - beside
    result: dict[str, Any] = {
        "benchmark": "peak", "config": options.config, "planned_gb": planned / 1e9, "measured_gb": measured / 1e9,
        "beside_gb": beside / 1e9, "measured_over_planned": measured / planned, "versions": versions("jax", "jaxlib"),
    }  # fmt: skip
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in result.items()}))


def peak(workdir: Path, *arguments: str) -> float:
    """Bytes at most of a run of two steps."""
    launch(workdir, *arguments, "--train.steps", "2")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return 1e9 * max(json.loads(line).get("memory/peak_gb", 0.0) for line in lines)


def launch(workdir: Path, *arguments: str) -> None:
    """One `launch.py` in a process of its own."""
    command = [sys.executable, "launch.py", *arguments, "--mesh", "1x1", "--workdir", str(workdir)]
    subprocess.run(command, check=True, env=os.environ | RETURNING, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
