"""A run's directory belongs to one model: config.json says to which."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config, to_dict


def claim(workdir: Path, config: Config, architecture: Any) -> None:
    """Writes config.json into the run's directory, or checks the one that is there.

    Raises:
      ValueError: the directory cannot be written, or holds a run of another model.
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
        for name in changed(theirs["config"], mine["config"]):
            print(f"resuming with a changed config: {name}")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(mine, indent=2) + "\n")
        os.replace(part, path)
    except OSError as error:
        raise ValueError(f"--workdir {workdir} cannot be written ({error.strerror}); choose another") from error


def changed(old: dict, new: dict, prefix: str = "") -> list[str]:
    """`section.field: old -> new` of every field that differs."""
    lines = []
    for name in new:
        if isinstance(new[name], dict):
            lines += changed(old.get(name, {}), new[name], f"{prefix}{name}.")
        elif old.get(name) != new[name]:
            lines.append(f"{prefix}{name}: {old.get(name)!r} -> {new[name]!r}")
    return lines
