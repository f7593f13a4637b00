"""Checkpoints: the train state and a step number, which is all a run needs to go on exactly."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from igrpo_jax.learner import Learner, TrainState
from igrpo_jax.types import PyTree


class Checkpoints:
    """Orbax checkpoints of a run, written asynchronously and renamed into place when complete."""

    def __init__(self, directory: Path, *, keep: int | None):
        """Opens or creates the directory; unfinished checkpoints of a killed run are removed.

        Args:
          directory: where they are.
          keep: how many of the newest stay; None keeps all.
        """
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def latest(self) -> int | None:
        """Completed steps of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Writes the state after `step` completed steps; returns once the arrays are copied, not written."""
        self._manager.save(step, args=ocp.args.StandardSave(_named(state)))

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """The state after `step` steps, every array straight at its place.

        Raises:
          ValueError: the checkpoint holds other arrays than this policy's.
        """
        target = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings)
        try:
            arrays = self._manager.restore(step, args=ocp.args.StandardRestore(_named(target)))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise ValueError(
                f"checkpoint {step} in {self._manager.directory} does not hold this policy or is damaged "
                f"({str(error).splitlines()[0][:200]}); use another --workdir or delete that checkpoint"
            ) from error
        return jax.tree.unflatten(jax.tree.structure(target), [arrays[name] for name in _named(target)])

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def newest_params(directory: Path, learner: Learner) -> tuple[PyTree | None, int]:
    """Parameters of the newest checkpoint and its step; None and 0 without one."""
    if not directory.is_dir():
        return None, 0
    checkpoints = Checkpoints(directory, keep=None)
    step = checkpoints.latest()
    params = None if step is None else checkpoints.restore(step, learner.abstract, learner.shardings).params
    checkpoints.close()
    return params, step or 0


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, in leaf order: a file format that does not depend on Python classes."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
