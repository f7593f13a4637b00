"""A thread that appends to files, so that a full or slow disk never holds up training.

What cannot be written is kept, up to a bound, and written when there is room again; what goes beyond the bound is
counted.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

BOUND = 1 << 26
"""Bytes that are kept while they cannot be written."""

PATIENCE = 1.0
"""Seconds that one call waits for what it hands over to be on its way to the disk; none while the disk is behind."""

RETRY = 1.0
"""Seconds between two tries of what could not be written."""


class Writer:
    """Appends bytes to files in the order in which they come, each portion whole or not at all."""

    def __init__(self, say: Callable[[str], None], *, bound: int = BOUND, retry: float = RETRY):
        """Starts the thread.

        Args:
          say: gets a line when writing fails, and one when it works again.
          bound: bytes that wait at most.
          retry: seconds between two tries.
        """
        self._say, self._bound, self._retry = say, bound, retry
        self._waiting: deque[tuple[Path, bytes]] = deque()
        self._size = self._lost = 0
        self._behind = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def append(self, portions: Mapping[Path, bytes]) -> None:
        """Hands over what is to be appended to each file; waits a moment for it, if the disk has kept up so far."""
        with self._changed:
            for path, data in portions.items():
                if self._size + len(data) > self._bound:
                    self._lost += 1
                else:
                    self._waiting.append((path, data))
                    self._size += len(data)
            self._changed.notify_all()
            caught_up = lambda: not self._waiting or self._behind
            stuck = not self._behind and not self._changed.wait_for(caught_up, PATIENCE)
            self._behind |= stuck
        if stuck:
            self._say_behind(next(iter(portions)), f"is not written within {PATIENCE:g} s")

    def close(self, seconds: float = 5.0) -> None:
        """Waits for what is still to be written, at most so long, and says what is lost, once."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._closed, seconds)
            lost = 0 if self._closed else self._lost + len(self._waiting)
            self._closed = True
            self._changed.notify_all()
        if lost:
            self._say(f"warning: {lost} records could not be written and are lost")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                path, data = self._waiting[0]
            try:
                append_whole(path, data)
            except OSError as error:
                self._failed(path, error)
            else:
                self._written(len(data))

    def _failed(self, path: Path, error: OSError) -> None:
        with self._changed:
            first, self._behind = not self._behind, True
            self._changed.notify_all()
        if first:
            self._say_behind(path, f"cannot be written ({error.strerror})")
        with self._changed:
            self._changed.wait_for(lambda: self._closed, self._retry)

    def _say_behind(self, path: Path, why: str) -> None:
        kept = f"keeps up to {self._bound >> 20} MiB of records until there is room"
        self._say(f"warning: {path} {why}; the run goes on, and {kept}")

    def _written(self, size: int) -> None:
        with self._changed:
            self._waiting.popleft()
            self._size -= size
            again = self._behind and not self._waiting
            lost = self._lost
            if again:
                self._behind, self._lost = False, 0
            self._changed.notify_all()
        if again:
            self._say("records are written again" + (f"; {lost} were lost" if lost else ""))


def append_whole(path: Path, data: bytes) -> None:
    """Appends all of the bytes to a file, or leaves it as it was.

    Raises:
      OSError: it cannot be written; a full disk for one.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)
    try:
        before, rest = os.fstat(file).st_size, memoryview(data)
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)


def replace_whole(path: Path, data: bytes) -> None:
    """Writes a file anew: the old one stays until the new one is on disk.

    Raises:
      OSError: it cannot be written; the old one is still there.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def sweep(directory: Path, names: Sequence[str]) -> None:
    """Removes what writers of these files that were killed have left beside them."""
    for name in names:
        for part in [*directory.glob(f"{name}.*.part"), directory / f"{Path(name).stem}.part"]:
            if part.is_file():
                part.unlink()
