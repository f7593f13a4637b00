"""Runs as processes of their own: started, told to leave together, and gone when the one that started them is."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_FOLLOW = """\
import ctypes, os, sys
with __import__("contextlib").suppress(Exception):
    ctypes.CDLL(None).prctl(1, 15)  # SIGTERM when the parent is gone, so that the run saves and leaves
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Begins a process that does not outlive its parent, on Linux; elsewhere it does, and keeps its directory's lease."""


class Children:
    """Processes that run side by side, each in a place of its own.

    Attributes:
      told: the signal that has asked all of them to leave; empty as long as there was none.
    """

    def __init__(self, places: Sequence[Mapping[str, str]]):
        """No process so far.

        Args:
          places: what each process gets in its environment, one at a time in each.
        """
        self._free = list(places)
        self._running: dict[Hashable, tuple[subprocess.Popen, Mapping[str, str]]] = {}
        self.told = ""

    @property
    def room(self) -> bool:
        """Whether there is a place for one more."""
        return bool(self._free) and not self.told

    @property
    def running(self) -> list[Any]:
        """What is running."""
        return list(self._running)

    def start(self, key: Hashable, command: Sequence[str], log: Path) -> None:
        """Starts a Python program; what it says goes to the end of a file."""
        place = self._free.pop(0)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _FOLLOW, str(os.getpid()), *command],
                env=os.environ | place, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._running[key] = process, place
        if self.told:
            process.terminate()

    def ended(self) -> list[tuple[Any, int]]:
        """What has ended since the last call, each with its exit status."""
        found = []
        for key, (process, place) in list(self._running.items()):
            status = process.poll()
            if status is not None:
                del self._running[key]
                self._free.append(place)
                found.append((key, status))
        return found

    def leave(self, reason: str) -> None:
        """Asks all of them to save and leave; nothing more is started."""
        self.told = self.told or reason
        for process, _ in list(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """Inside, SIGTERM and SIGINT are handed on, each time they come."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread only
            return
        heard = lambda number, _: self.leave(signal.Signals(number).name)
        earlier = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            self.leave("an error")
            for process, _ in self._running.values():
                process.wait()
            for number, handler in earlier.items():
                signal.signal(number, handler)


def places(parallel: int, gpus: Callable[[], Sequence[str]] | None = None) -> list[dict[str, str]]:
    """The environment of each of so many processes: its share of the NVIDIA GPUs where there are any.

    Raises:
      ValueError: the GPUs cannot be shared equally.
    """
    if parallel < 1:
        raise ValueError(f"--parallel is {parallel}; it must be at least 1")
    if parallel == 1:
        return [{}]
    found = list((gpus or visible_gpus)())
    if not found:
        return [{} for _ in range(parallel)]
    if len(found) % parallel:
        fit = ", ".join(str(n) for n in range(1, len(found) + 1) if len(found) % n == 0)
        raise ValueError(f"--parallel {parallel} does not divide {len(found)} GPUs; choose one of {fit}")
    size = len(found) // parallel
    return [{"CUDA_VISIBLE_DEVICES": ",".join(found[i * size : (i + 1) * size])} for i in range(parallel)]


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs of this machine, as CUDA_VISIBLE_DEVICES names them; asked without taking hold of any."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(index) for index, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
