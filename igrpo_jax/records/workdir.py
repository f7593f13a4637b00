"""A run's directory belongs to one experiment: config.json says to which."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config, fields, to_dict

FREE = (
    *("model.remat", "model.flash", "model.export_dtype", "data.eval", "sampling.rows"),
    *("reward.workers", "reward.deadline", "reward.memory_mb"),
    *("train.steps", "train.micro_batch", "train.logprob_chunk", "train.save_every", "train.keep", "train.eval_every"),
    *("train.sample_rows", "train.export", "eval."),
)
"""Fields, and sections with their dot, that may change when a run is resumed: they are no part of what it learns.

`train.steps` is, for the learning rate's schedule follows it from there on; but a run may go on for longer.
"""


def claim(workdir: Path, config: Config, architecture: Any) -> None:
    """Writes config.json into the run's directory, or checks the one that is there.

    Raises:
      ValueError: the directory cannot be written, holds a run of another model, or checkpoints of another experiment.
    """
    path = workdir / "config.json"
    mine = {"config": to_dict(config), "architecture": dataclasses.asdict(architecture)}
    mine = json.loads(json.dumps(mine))
    if path.exists():
        theirs = json.loads(path.read_text())
        if theirs["architecture"] != mine["architecture"]:
            raise ValueError(
                f"{workdir} holds a run of another model ({theirs['config']['model']['source']}); "
                "choose another --workdir or delete that one"
            )
        changes = changed(theirs["config"], mine["config"])
        others = [change for change in changes if not change.startswith(FREE)]
        if others and any(entry.name.isdecimal() for entry in (workdir / "checkpoints").glob("*")):
            raise ValueError(
                f"{workdir} holds checkpoints of another experiment ({', '.join(others)}); choose another --workdir"
            )
        for change in changes:
            print(f"resuming with a changed config: {change}")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(mine, indent=2) + "\n")
        os.replace(part, path)
    except OSError as error:
        raise ValueError(f"--workdir {workdir} cannot be written ({error.strerror}); choose another") from error


def changed(old: dict, new: dict) -> list[str]:
    """`section.field: old -> new` of every field that differs; one that the old dict does not know had its default."""
    before = fields(json.loads(json.dumps(to_dict(Config())))) | fields(old)
    return [f"{name}: {before[name]!r} -> {value!r}" for name, value in fields(new).items() if before[name] != value]
