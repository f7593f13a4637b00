"""Shows a run."""

from pathlib import Path

from igrpo_jax.config import Config
from igrpo_jax.edges.preemption import Stop
from jobs.arguments import Launch


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Prints the first and last steps of the run in this workdir."""
    from rich.console import Console

    from igrpo_jax.records.runlog import read_metrics, summary_table

    Console().print(summary_table(read_metrics(workdir)))
