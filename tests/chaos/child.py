"""Runs launch.py and says through a pipe what it is doing, so that it can be killed while it does just that.

python tests/chaos/child.py <descriptor> <arguments of launch.py>

The environment's `IGRPO_CHAOS_FULL` has a disk filled as something begins: folder, phase, the how manieth of its kind,
and after how many seconds there is room again (0 is never), with colons between.
"""

import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())
from tests.runs import fill

PHASES = {
    "load": ("models.formats.load", "find"),
    "data": ("igrpo_jax.data", "load_problems"),
    "claim": ("igrpo_jax.records.workdir", "claim"),
    "compile": ("igrpo_jax.sampling.programs", "Programs.__init__"),
    "sampling": ("igrpo_jax.sampling.flight", "Flight.advance"),
    "grading": ("igrpo_jax.drive", "grade"),
    "update": ("igrpo_jax.learning.learner", "Learner.update"),
    "records": ("igrpo_jax.records.runlog", "RunLog.samples"),
    "save": ("igrpo_jax.records.checkpoint", "Checkpoints.save"),
    "evaluation": ("igrpo_jax.train", "run_evaluations"),
    "export": ("models.formats.weights", "export"),
}
"""What a run does, and the function whose call begins it."""


def announcing(function: Callable[..., Any], phase: str, descriptor: int) -> Callable[..., Any]:
    """The same function, which says first that it begins, and fills the disk if it is its turn."""
    folder, which, number, seconds = os.environ.get("IGRPO_CHAOS_FULL", ":::").split(":")
    calls = []

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        os.write(descriptor, f"{phase}\n".encode())
        calls.append(phase)
        if which == phase and len(calls) == int(number):
            filling = fill(Path(folder))
            if float(seconds):
                threading.Timer(float(seconds), filling.unlink).start()
        return function(*arguments, **named)

    return called


def main(descriptor: int, arguments: list[str]) -> None:
    """A whole run, to the end of the process where it is not 0."""
    import launch
    from igrpo_jax.edges.preemption import end

    for phase, (module, path) in PHASES.items():
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, name, announcing(getattr(owner, name), phase, descriptor))
    end(launch.main(arguments))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
