"""Checkpoints: the train state and a step number, which is all a run needs to go on exactly."""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from igrpo_jax.learning.learner import TrainState
from igrpo_jax.types import PyTree


class Checkpoints:
    """Orbax checkpoints of a run, written asynchronously and renamed into place when complete."""

    def __init__(self, directory: Path, *, keep: int | None):
        """Opens or creates the directory; unfinished checkpoints of a killed run are removed.

        Args:
          directory: where they are.
          keep: how many of the newest stay; None is for reading only, beside a run that may be alive: nothing is
            created or removed.
        """
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        if keep is None:
            options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
        log = logging.getLogger("absl")
        level = log.level
        if keep is None:
            log.setLevel(logging.ERROR)  # orbax warns of what was asked for
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        log.setLevel(level)

    def latest(self) -> int | None:
        """Completed steps of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Writes the state after `step` completed steps; returns once the arrays are copied, not written."""
        self._manager.save(step, args=ocp.args.PyTreeSave(_named(state)))

    def restore(self, step: int, placed: TrainState) -> TrainState:
        """The state after `step` steps, every array straight at its place.

        Args:
          step: one that was saved.
          placed: shapes with shardings, `Learner.placed`; what is `ocp.PLACEHOLDER` instead is not read.

        Raises:
          ValueError: the checkpoint holds other arrays than this policy's.
        """
        target = _named(placed)
        places = ocp.checkpoint_utils.construct_restore_args(target)
        try:
            arrays = self._manager.restore(step, args=ocp.args.PyTreeRestore(target, restore_args=places))
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise ValueError(
                f"checkpoint {step} in {self._manager.directory} does not hold this policy or is damaged "
                f"({str(error).splitlines()[0][:200]}); use another --workdir or delete that checkpoint"
            ) from error
        return jax.tree.unflatten(jax.tree.structure(placed), [arrays[name] for name in target])

    def restore_params(self, step: int, placed: TrainState) -> PyTree:
        """The parameters alone, as `restore` has them."""
        unread = jax.tree.map(lambda _: ocp.PLACEHOLDER, placed.moments)
        return self.restore(step, placed._replace(moments=unread)).params

    def wait(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on disk, and ends."""
        self.wait()
        self._manager.close()


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, in leaf order: a file format that does not depend on Python classes."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
