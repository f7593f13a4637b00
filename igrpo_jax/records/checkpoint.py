"""Checkpoints: the train state and a step number, which is all a run needs to go on exactly.

Each carries checksums of its files, written before it is renamed into place; the newest one that is whole counts.
"""

import logging
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from igrpo_jax.edges.printable import say
from igrpo_jax.learning.learner import TrainState
from igrpo_jax.records import checksums
from igrpo_jax.types import Divide, PyTree, alone

ITEM = "default"
"""The folder inside a step's that holds the arrays and their checksums."""


def tell(text: str) -> None:
    """Says a line on standard error, in the first process only."""
    if jax.process_index() == 0:
        say(text)


class Checkpoints:
    """Orbax checkpoints of a run, written asynchronously and renamed into place when complete.

    Attributes:
      unsaved: why the newest save failed, None where none has, or the one after it succeeded.
      beside: what files, by name, belong to the state after so many steps; they are saved and checked with it.
    """

    def __init__(self, directory: Path, *, keep: int | None, divide: Divide = alone, say: Callable[[str], None] = tell):
        """Opens or creates the directory; unfinished checkpoints of a killed run are removed.

        Args:
          directory: where they are.
          keep: how many of the newest stay; None is for reading only, beside a run that may be alive: nothing is
            created, moved or removed.
          divide: lets every process check a part of the files; all learn the same.
          say: gets one line about each checkpoint that is damaged or could not be saved.
        """
        self.unsaved: str | None = None
        self.beside: Callable[[int], dict[str, bytes]] = lambda step: {}
        self._sealing = _Sealing()
        self._directory, self._reads, self._divide, self._say = directory.absolute(), keep is None, divide, say
        self._judged: dict[int, str | None] = {}
        self._watcher: threading.Thread | None = None
        self._last: tuple[int, TrainState] | None = None
        for step in self._steps():
            for file in (self._directory / str(step)).rglob("*"):
                if not (file.is_file() or file.is_dir()):
                    raise ValueError(f"{file} is no plain file; move it away")  # to read a pipe is to wait for ever
        self._keep = keep
        self._open()
        _silence_orbax()

    def latest(self) -> int | None:
        """Completed steps of the newest checkpoint that is whole, or None where there is none at all.

        What is damaged is named in one line each. Before a run goes on, it is moved aside, to be made again.

        Raises:
          ValueError: there are checkpoints, and none is whole.
        """
        steps = self._steps()
        damaged = []
        for step in steps:
            reason = self._judge(step, steps)
            if reason is None:
                self._set_aside(damaged)
                return step
            if (self._directory / str(step)).exists():
                damaged.append(step)
                self._say(f"checkpoint {step} in {self._directory} is damaged ({reason}); the one before is used")
        if damaged:
            raise ValueError(
                f"no checkpoint in {self._directory} is whole (newest: {damaged[0]}, {self._judged[damaged[0]]}); put "
                "one back from a copy, or move that directory away to begin again"
            )
        return None

    def save(self, step: int, state: TrainState) -> None:
        """Writes the state after `step` completed steps; returns once the arrays are copied, not written.

        One that fails is said in a line when it fails, and changes nothing of what is there; the next save is tried
        all the same.
        """
        self._settle()
        self._last = (step, state)
        error = None
        if self._unsaved_anywhere():
            # A manager that has failed raises earlier failures again, some saves later.
            _error_of(self._manager.close)
            error = _error_of(self._open)
        if step != self._sealing.step:  # a save that failed may be tried again much later
            self._sealing.step, self._sealing.files = step, self.beside(step)
        with _no_warnings():
            error = error or _error_of(lambda: self._manager.save(step, args=ocp.args.PyTreeSave(_named(state))))
        if error:
            self._finish()
            self._failed(step, error)
            return
        self._watcher = threading.Thread(target=self._watch, args=(step,), name="checkpoint watcher", daemon=True)
        self._watcher.start()

    def restore(self, step: int, placed: TrainState) -> TrainState:
        """The state after `step` steps, every array straight at its place.

        Args:
          step: what `latest` said, or another one that was saved.
          placed: shapes with shardings, `Learner.placed`; what is `ocp.PLACEHOLDER` instead is not read.

        Raises:
          ValueError: the checkpoint holds other arrays than this policy's.
        """
        target = _named(placed)
        places = ocp.checkpoint_utils.construct_restore_args(target)
        try:
            with _no_warnings():
                arrays = self._manager.restore(step, args=ocp.args.PyTreeRestore(target, restore_args=places))
        # What is wrong with the files surfaces as any kind of exception.
        except Exception as error:
            raise ValueError(
                f"checkpoint {step} in {self._directory} does not hold this policy or is damaged ({_line(error)}); use "
                "another --workdir or delete that checkpoint"
            ) from error
        return jax.tree.unflatten(jax.tree.structure(placed), [arrays[name] for name in target])

    def restore_params(self, step: int, placed: TrainState) -> PyTree:
        """The parameters alone, as `restore` has them."""
        unread = jax.tree.map(lambda _: ocp.PLACEHOLDER, placed.moments)
        return self.restore(step, placed._replace(moments=unread)).params

    def read_beside(self, step: int, name: str) -> bytes | None:
        """A file that was saved beside the state after `step` steps; None where there is none of that name."""
        path = self._directory / str(step) / ITEM / name
        return path.read_bytes() if path.is_file() else None

    def wait(self) -> None:
        """Waits until everything is on disk, or has failed and was said to."""
        self._settle()

    def finish(self) -> str | None:
        """Waits as `wait` does, and tries a last save that failed once more; why that failed too, if it did.

        All processes must call it, and learn the same.
        """
        self._settle()
        failure = self._unsaved_anywhere()
        if failure and self._last and not any(leaf.is_deleted() for leaf in jax.tree.leaves(self._last[1])):
            self.save(*self._last)
            self._settle()
            failure = self._unsaved_anywhere()
        self.unsaved, self._last = failure, None
        return failure

    def close(self) -> None:
        """Waits until everything is on disk, or has failed and was said to; from any process alone."""
        if jax.process_count() == 1:
            self.finish()
        self._settle()
        self._last = None
        _error_of(self._manager.close)  # what may have failed has been said

    def _unsaved_anywhere(self) -> str | None:
        """Why the newest save failed in the first of the processes in which it did."""
        reasons = self._divide("unsaved", lambda part: [self.unsaved for _ in part], range(jax.process_count()))
        return next((reason for reason in reasons if reason), None)

    def _open(self) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        if self._reads:
            options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
        with _no_warnings():  # orbax warns of what was asked for
            self._manager = ocp.CheckpointManager(
                self._directory, options=options, handler_registry=_registry(self._sealing)
            )

    def _steps(self) -> list[int]:
        """Steps of all checkpoints, the newest first."""
        found = self._directory.iterdir() if self._directory.is_dir() else ()
        return sorted((int(entry.name) for entry in found if entry.name.isdecimal()), reverse=True)

    def _judge(self, step: int, steps: Sequence[int]) -> str | None:
        """What is wrong with a checkpoint; None where it is whole. All processes find the same."""
        if step not in self._judged:
            folder = self._directory / str(step) / ITEM
            try:
                files = checksums.read_checksums(folder)
            except ValueError as error:
                self._judged[step] = str(error)
                return str(error)
            if files is None:
                self._judged[step] = self._unsealed(step, steps)
            else:
                check = lambda names: [checksums.damage(folder, name, *files[name]) for name in names]
                found = self._divide("checksums", check, sorted(files))
                self._judged[step] = next((reason for reason in found if reason), None)
        return self._judged[step]

    def _unsealed(self, step: int, steps: Sequence[int]) -> str | None:
        """What is wrong with a checkpoint without checksums: nothing that can be seen, if it is of an older version."""
        if any((self._directory / str(other) / ITEM / checksums.NAME).exists() for other in steps if other < step):
            return f"{checksums.NAME} is missing"
        try:
            self._manager.item_metadata(step)
        except Exception as error:
            return _line(error)
        self._say(f"checkpoint {step} in {self._directory} has no checksums, an older version wrote it; used unchecked")
        return None

    def _set_aside(self, damaged: Sequence[int]) -> None:
        """Makes room for the steps that are to be made again."""
        if self._reads or not damaged:
            return
        move = lambda steps: [_move_aside(self._directory / str(step)) for step in steps]
        self._divide("aside", move, damaged)
        self._manager.reload()

    def _settle(self) -> None:
        """Waits for the save in progress; its failure has been said."""
        if watcher := self._watcher:
            watcher.join()
            self._watcher = None

    def _watch(self, step: int) -> None:
        error = self._finish()
        if error:
            self._failed(step, error)
        else:
            self.unsaved, self._judged[step] = None, None

    def _finish(self) -> Exception | None:
        """Waits for the save in progress, and gives why it failed: each part that took part in it raises that once."""
        waits = (self._manager.wait_until_finished, self._manager.check_for_errors)
        errors = [_error_of(wait) for wait in waits]
        return next((error for error in errors if error), None)

    def _failed(self, step: int, error: Exception) -> None:
        self.unsaved = f"step {step} could not be saved ({_line(error)})"
        if jax.process_index() == 0:
            for part in self._directory.glob(f"{step}.*-tmp*"):
                shutil.rmtree(part, ignore_errors=True)
        self._say(f"{self.unsaved}; what was saved before stays, and the next save tries again")


class _Sealing(ocp.PyTreeCheckpointHandler):
    """Orbax's handler of trees, which also writes checksums: when all is written, before it is renamed into place.

    Attributes:
      step: of the newest save.
      files: what else is written with it, by name.
    """

    step: int | None = None
    files: Mapping[str, bytes] = MappingProxyType({})

    def finalize(self, directory: Any) -> None:
        """Called in the background, in one process."""
        super().finalize(directory)
        for name, content in self.files.items():
            (Path(directory) / name).write_bytes(content)
        checksums.write_checksums(Path(directory))


def _registry(handler: _Sealing) -> Any:
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for arguments in (ocp.args.PyTreeSave, ocp.args.PyTreeRestore):
        registry.add(ITEM, arguments, handler)
    return registry


def _move_aside(folder: Path) -> None:
    """Renames a damaged checkpoint, so that its step can be saved again."""
    number, target = 1, folder.with_name(f"{folder.name}.damaged")
    while target.exists():
        number, target = number + 1, folder.with_name(f"{folder.name}.damaged{number}")
    folder.rename(target)


def _error_of(action: Callable[[], object]) -> Exception | None:
    try:
        action()
    except Exception as error:
        return error
    return None


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:300] or type(error).__name__


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keeps absl, through which orbax logs, to errors."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _silence_orbax() -> None:
    """Keeps orbax's errors and tracebacks off the terminal: they are raised again, and said in one line."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)  # the same one is added once
    if not hasattr(threading.excepthook, "wraps"):
        threading.excepthook = _without_orbax(threading.excepthook, lambda raised: raised.exc_traceback)
        sys.unraisablehook = _without_orbax(sys.unraisablehook, lambda raised: raised.exc_traceback)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    trace = record.exc_info[2] if record.exc_info else None
    return not (_of_orbax(trace) or (record.levelno >= logging.ERROR and "/orbax/" in record.pathname))


def _of_orbax(trace: TracebackType | None) -> bool:
    """Whether an error comes out of orbax's threads, or out of the event loops that they leave behind."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace)]
    return any("/orbax/" in file for file in files) or bool(files and all("/asyncio/" in file for file in files))


def _without_orbax(usual: Callable[..., Any], trace_of: Callable[..., TracebackType | None]) -> Callable[..., None]:
    def hook(*raised: Any) -> None:
        if not _of_orbax(trace_of(*raised)):
            usual(*raised)

    hook.wraps = usual  # type: ignore[attr-defined]
    return hook


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, in leaf order: a file format that does not depend on Python classes."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
