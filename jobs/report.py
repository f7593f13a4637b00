"""Shows runs: a page to look at, and the first and last steps on the terminal."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from igrpo_jax.config import Config
from igrpo_jax.edges.preemption import Stop
from igrpo_jax.edges.user_code import path_of
from jobs.arguments import Launch

EVERY = 60.0
"""Seconds between two pages of a run that goes on."""


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Writes the report of these workdirs; with `--watch` again and again, until no run goes on there or Ctrl-C."""
    from igrpo_jax.report.runs import living

    if not 0 <= launch.gpu_hour_price < float("inf"):
        raise ValueError(f"--gpu-hour-price is {launch.gpu_hour_price}; it must be at least 0")
    workdirs = [path_of(name) for name in launch.workdir] or [workdir]
    out = path_of(launch.out) if launch.out else place(workdirs)
    write = partial(show, workdirs, out, launch.gpu_hour_price)
    if not launch.watch:
        write()
        return
    try:
        while living(workdirs):
            try:
                write()
            except ValueError as error:
                print(f"nothing yet: {error}")
            time.sleep(EVERY)
        write()
    except KeyboardInterrupt:
        print(f"{out / 'report.html'} stays as it is")


def place(workdirs: Sequence[Path]) -> Path:
    """Where a report goes if nobody says."""
    return workdirs[0] / "report" if len(workdirs) == 1 else Path(__file__).parents[1] / "runs" / "report"


def show(workdirs: Sequence[Path], out: Path, price: float) -> None:
    """Writes a report and prints its path, of one run below the first and last steps."""
    from rich.console import Console

    from igrpo_jax.records.runlog import read_metrics, summary_table
    from igrpo_jax.report.write import write_report

    page, notes = write_report(workdirs, out, price=price)
    if len(workdirs) == 1 and (workdirs[0] / "metrics.jsonl").is_file():
        Console().print(summary_table(read_metrics(workdirs[0])))
    for note in notes:
        print(f"note: {note}")
    print(page)


def report_on(workdir: Path) -> str:
    """Writes the report of a run that has just ended; its path, or why there is none: that is no failure of the run."""
    from igrpo_jax.report.write import write_report

    try:
        return str(write_report([workdir], place([workdir]))[0])
    except Exception as error:  # whatever it is, the run is trained and saved
        return f"warning: no report could be written ({type(error).__name__}: {' '.join(str(error).split())})"
