"""Writes a checkpoint as a Hugging Face model."""

from functools import partial
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config
from igrpo_jax.edges.preemption import Stop
from igrpo_jax.edges.printable import printable, say
from jobs.arguments import Launch
from jobs.devices import devices
from jobs.parts import make_learner, newest_params


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Writes the newest checkpoint of the workdir to workdir/export."""
    with devices(launch, config, stop) as layout:
        export(config, layout, workdir)


def export(config: Config, layout: Any, workdir: Path) -> None:
    """As `run`."""
    from igrpo_jax.records.workdir import compare_run
    from models.formats.load import find

    found = find(config.model.source)
    layout.processes.once(partial(compare_run, workdir, config, found.config, say=say))
    params, step = newest_params(workdir, make_learner(config, layout, found.config), layout)
    if step == 0:
        raise ValueError(f"{workdir} holds no checkpoint to export; train first or give another --workdir")
    write_export(config, params, found, workdir)


def write_export(config: Config, params: Any, found: Any, workdir: Path) -> None:
    """Writes workdir/export for transformers."""
    import jax

    from models.formats.weights import export

    dtype = config.model.export_dtype
    export(params, workdir / "export", tokenizer=found.tokenizer, source=found.directory, dtype=dtype)
    if jax.process_index() == 0:
        print(printable(f"exported to {workdir / 'export'}"))
