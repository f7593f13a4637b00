"""Hands metrics on to a tracker that runs in a process of its own, so that nothing it does can stop or slow a run.

It may raise, crash, hang, print, or have no network: what it is given waits in a queue with a bound, and the run says
once what is wrong and goes on. The run's own records have everything in any case.
"""

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from igrpo_jax.edges.printable import printable
from igrpo_jax.records.writer import replace_whole

BOUND = 1000
"""Records that wait at most."""

FINISH = 30.0
"""Seconds that a tracker has at the end of a run."""

IDENTITY = "tracker.json"
"""Under what a run is known to trackers, so that it goes on there when it is resumed."""

LOG = "tracker.log"
"""What the tracker prints."""


def installed(kind: str) -> None:
    """Looks whether a tracker's package is there.

    Raises:
      ValueError: it is not.
    """
    found = importlib.util.find_spec(kind)
    if found is None or found.origin is None:  # a mere folder of that name, as trackers leave them, is no package
        raise ValueError(f"--track {kind} needs its package; pip install 'igrpo-jax[{kind}]' or leave --track out")


class Tracker:
    """A run in a tracker; `log` never waits."""

    def __init__(
        self,
        kind: str,
        workdir: Path,
        config: Mapping[str, Any],
        *,
        resumed: bool,
        say: Callable[[str], None],
        bound: int = BOUND,
        finish: float = FINISH,
    ):
        """Starts the process.

        Args:
          kind: trackio, wandb or mlflow.
          workdir: the run's directory.
          config: values by name, to be shown beside the metrics.
          resumed: whether this goes on with the run that was recorded from this directory before.
          say: gets a line if the tracker fails, and one at most for records that it does not get.
          bound: records that wait at most.
          finish: seconds that the tracker has at the end.

        Raises:
          ValueError: the tracker's package is not installed.
        """
        installed(kind)
        self._kind, self._say, self._finish, self._log = kind, say, finish, workdir / LOG
        self._waiting: queue.Queue[bytes | None] = queue.Queue(bound)
        self._failed, self._lost, self._ending = threading.Event(), 0, False
        try:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "igrpo_jax.records.trackers.adapters", kind, str(workdir),
                     identity_of(workdir, resumed=resumed)],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env=_environment(),
                )  # fmt: skip
        except OSError as error:
            self._fail(str(error))
            return
        self._waiting.put(_line(config))
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hands over metrics, all finite, after so many steps; drops them if the tracker is too far behind."""
        if self._failed.is_set():
            return
        try:
            self._waiting.put_nowait(_line({"step": step, "values": dict(values)}))
        except queue.Full:
            if not self._lost:
                self._say(
                    f"warning: the tracker {self._kind} is {self._waiting.maxsize} records behind; what comes now it "
                    f"does not get (metrics.jsonl has all; see {self._log})"
                )
            self._lost += 1

    def close(self) -> None:
        """Gives the tracker some seconds to come to an end, and says what it has not got."""
        if self._failed.is_set():
            return
        self._ending = True
        until = threading.Timer(self._finish, self._kill)
        until.daemon = True
        until.start()
        try:
            self._waiting.put(None, timeout=self._finish)
        except queue.Full:
            self._kill()
        self._thread.join(self._finish + 5)
        until.cancel()
        if self._lost and not self._failed.is_set():
            self._say(f"warning: the tracker {self._kind} did not get {self._lost} records; metrics.jsonl has all")

    def _run(self) -> None:
        """The thread: writes to the process, and waits for its end."""
        pipe = self._process.stdin
        assert pipe is not None
        early = False
        try:
            while (line := self._waiting.get()) is not None:
                pipe.write(line)
                pipe.flush()
        except OSError:
            early = True
        with contextlib.suppress(OSError):
            pipe.close()
        status = self._process.wait()
        if status or early:
            self._fail(self._reason(status))

    def _reason(self, status: int) -> str:
        """Why the process ended: the last line that it printed."""
        if self._ending and status == -signal.SIGKILL:
            return f"it was not done {self._finish:g} s after the end and was stopped"
        try:
            lines = self._log.read_bytes()[-4096:].decode(errors="replace").split("\n")
        except OSError:
            lines = []
        words = [" ".join(line.split()) for line in lines if line.strip()]
        return words[-1] if words else f"it ended with status {status}"

    def _fail(self, why: str) -> None:
        self._failed.set()
        self._say(
            f"warning: the tracker {self._kind} has failed ({printable(why)[:300]}); the run goes on without it, and "
            f"metrics.jsonl has all (see {self._log})"
        )

    def _kill(self) -> None:
        """Ends the process and what it has started."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def identity_of(workdir: Path, *, resumed: bool) -> str:
    """The name that a run has in trackers: a new one, or for a resumed run the one that it had."""
    path = workdir / IDENTITY
    if resumed:
        try:
            known = json.loads(path.read_text(encoding="utf-8"))["identity"]
            if isinstance(known, str) and known.isalnum():
                return known
        except (OSError, ValueError, KeyError, TypeError):
            pass  # it was not tracked before, or the file is damaged: then it is a new run there
    identity = uuid.uuid4().hex[:8]
    replace_whole(path, json.dumps({"identity": identity}).encode())
    return identity


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _environment() -> dict[str, str]:
    """That of this process, without the memory settings of `launch.py`; our package can be imported."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | {"PYTHONPATH": path}
