"""The other process of a tracker: reads records from its standard input and hands them to the tracker's own package.

    python -m igrpo_jax.records.trackers.adapters wandb runs/mine 0a1b2c3d

The first line is the config, each further one a step's metrics; the end of the input is the end of the run.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PROJECT = "igrpo_jax"
"""Under which runs are kept, if the tracker's own environment variable names no other project."""

LINGER = 300
"""Seconds after the end of the run within which a tracker must be done."""


class Opened(NamedTuple):
    """A run in a tracker.

    Attributes:
      log: takes metrics by name, and the step after which they hold.
      finish: ends the run.
    """

    log: Callable[[Mapping[str, float], int], Any]
    finish: Callable[[], Any]


def trackio(workdir: Path, identity: str, config: Mapping[str, Any]) -> Opened:
    """A run in trackio's local store, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say."""
    import trackio  # pyright: ignore[reportMissingImports]

    trackio.init(PROJECT, name=f"{workdir.name}-{identity}", config=dict(config), resume="allow", embed=False)
    return Opened(lambda values, step: trackio.log(dict(values), step=step), trackio.finish)


def wandb(workdir: Path, identity: str, config: Mapping[str, Any]) -> Opened:
    """A run in Weights & Biases; WANDB_MODE=offline keeps it in the run's directory."""
    import wandb  # pyright: ignore[reportMissingImports]

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    run = wandb.init(project=project, id=identity, name=workdir.name, config=dict(config), dir=workdir, resume="allow")
    return Opened(lambda values, step: run.log(dict(values), step=step), run.finish)


def mlflow(workdir: Path, identity: str, config: Mapping[str, Any]) -> Opened:
    """A run in the store that MLFLOW_TRACKING_URI names, or MLflow's own local one."""
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
    from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

    client, name = MlflowClient(), os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    known = client.get_experiment_by_name(name)
    experiment = known.experiment_id if known else client.create_experiment(name)
    earlier = client.search_runs([experiment], f"tags.igrpo_jax = '{identity}'")
    tags = {"igrpo_jax": identity}
    run = (earlier[0] if earlier else client.create_run(experiment, run_name=workdir.name, tags=tags)).info.run_id
    if not earlier:
        client.log_batch(run, params=[Param(mlflow_name(key), str(value)[:500]) for key, value in config.items()])

    def log(values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        client.log_batch(run, metrics=[Metric(mlflow_name(key), value, now, step) for key, value in values.items()])

    return Opened(log, lambda: client.set_terminated(run))


def mlflow_name(name: str) -> str:
    """A metric's name in the characters that MLflow allows, which must read as a path.

    >>> mlflow_name("eval/aime24/avg@8"), mlflow_name("eval/file:../a,b//c")
    ('eval/aime24/avg_at_8', 'eval/file:../a_b/_/c')
    """
    allowed = re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"), flags=re.ASCII)
    return "/".join(part if part.strip(".") else "_" for part in allowed.split("/"))


def main(kind: str, workdir: str, identity: str) -> None:
    """Reads the run from standard input."""
    config = json.loads(sys.stdin.readline())
    opened = {"trackio": trackio, "wandb": wandb, "mlflow": mlflow}[kind](Path(workdir), identity, config)
    for line in sys.stdin:
        if line.endswith("\n"):  # half a line is what a run leaves that was killed
            record = json.loads(line)
            opened.log(record["values"], record["step"])
    signal.alarm(LINGER)
    opened.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
