"""A long run of a tiny config, and what grows while it lasts: files, threads, compilations, step time, memory.

    python benchmarks/soak.py                 # 2,000 steps
    python benchmarks/soak.py --steps 200

A thread looks at the process while `launch.py` trains in it. What is shown at the start is seen after the tenth part of
the steps: before, everything is being loaded and compiled.
"""

import argparse
import ctypes
import gc
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from igrpo_jax.records.machine.allocator import keep_memory


class Seen(NamedTuple):
    """The process at one step; memory in MB.

    Attributes:
      resident: what the process holds of the machine's memory.
      used: what its allocator has handed out and not got back.
      arrays: what JAX's arrays hold.
      objects: how many Python objects the collector knows.
    """

    step: int
    files: int
    threads: int
    resident: float
    used: float
    arrays: float
    objects: int


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]  # fmt: skip


def in_use() -> float:
    """MB that the C library has handed out; NaN where it does not say."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return float("nan")
    mallinfo.restype = _Mallinfo2
    info = mallinfo()
    return (info.uordblks + info.hblkhd) / 1e6


def look(step: int) -> Seen:
    """The process now."""
    import jax

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Seen(
        step, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")),
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6, in_use(), sum(x.nbytes for x in jax.live_arrays()) / 1e6,
        len(gc.get_objects()),
    )  # fmt: skip


def watch(metrics: Path, steps: int, seen: list[Seen], over: threading.Event) -> None:
    """Looks ten times, as often as a tenth part of the steps is done."""
    each = following = max(steps // 10, 1)
    while not over.wait(0.05):
        done = _last_step(metrics)
        if done >= following:
            seen.append(look(done))
            following += each


def _last_step(metrics: Path) -> int:
    try:
        with metrics.open("rb") as file:
            file.seek(max(os.path.getsize(metrics) - 8192, 0))
            lines = file.read().split(b"\n")
        return json.loads(lines[-2])["step"]
    except (OSError, ValueError, IndexError):
        return 0


def show(seen: list[Seen], records: list[dict]) -> None:
    """Prints what was seen, and step times and compilations between."""
    print("steps  files  threads  resident MB  in use MB  arrays MB  objects  compiled  ms a step (median)")
    before = 0
    for one in seen:
        part = sorted(r["step_time"] for r in records if before < r["step"] <= one.step and "step_time" in r) or [0.0]
        compiled = sum(r.get("compile/count", 0) for r in records if before < r["step"] <= one.step)
        print(
            f"{one.step:>5}  {one.files:>5}  {one.threads:>7}  {one.resident:>11.0f}  {one.used:>9.0f}  "
            f"{one.arrays:>9.1f}  {one.objects:>7}  {compiled:>8.0f}  {1000 * part[len(part) // 2]:>18.0f}"
        )
        before = one.step


def main() -> None:
    """Trains, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--config", default="smoke.py")
    parser.add_argument("more", nargs="*", help="further arguments of launch.py, after --")
    options = parser.parse_args()
    import launch

    with tempfile.TemporaryDirectory() as folder:
        workdir, seen, over = Path(folder) / "run", [], threading.Event()
        metrics = workdir / "metrics.jsonl"
        watcher = threading.Thread(target=watch, args=(metrics, options.steps, seen, over), daemon=True)
        watcher.start()
        began = time.perf_counter()
        sizes = ["--train.steps", str(options.steps), "--train.save-every", "50", "--mesh", "1x1"]
        status = launch.main(["--config", options.config, "--workdir", str(workdir), *sizes, *options.more])
        over.set()
        watcher.join()
        if status:
            sys.exit(status)
        show(seen, [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()])
        print(f"{options.steps} steps in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    keep_memory()
    main()
