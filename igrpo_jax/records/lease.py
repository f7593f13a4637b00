"""One live run a directory: a file that says who is writing there, kept fresh while the run lives.

On one machine a process that has ended is known by its number and start; from another machine of a shared file system
only by a file that is not touched any more.
"""

import contextlib
import json
import os
import secrets
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME = "lease.json"

BEAT = 10.0
"""Seconds between two touches."""

DEAD = 180.0
"""Seconds without a touch after which a holder on another machine counts as dead."""


@contextlib.contextmanager
def lease(workdir: Path, *, say: Callable[[str], None], beat: float = BEAT, dead: float = DEAD) -> Iterator[None]:
    """Holds a run's directory inside the block; that of a process that is dead is taken over.

    Of a holder on another machine one cannot know: this waits until its file is touched (it lives), or has not been for
    `dead` seconds.

    Args:
      workdir: the run's directory; made where there is none.
      say: gets a line where there is something to wait for, or a lease is taken over.
      beat, dead: see `BEAT` and `DEAD`.

    Raises:
      ValueError: a run is writing here; says which since when.
    """
    path = workdir / NAME
    mine = _me() | {"since": datetime.now(UTC).isoformat(timespec="seconds"), "token": secrets.token_hex(8)}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _take(path, mine, say, beat, dead)
    except OSError as error:
        raise ValueError(f"--workdir {workdir} cannot be written ({error.strerror}); choose another") from error
    ended = threading.Event()
    thread = threading.Thread(target=_keep_fresh, args=(path, mine, ended, beat, say), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            if _read(path).get("token") == mine["token"]:
                path.unlink()


def held(workdir: Path) -> bool:
    """Whether a process of this machine that lives holds a run's directory; of others' one cannot know at a look."""
    try:
        other = _read(workdir / NAME)
    except OSError:
        return False
    return other.get("place") == _place() and _started(other["pid"]) == other.get("started")


def lives(workdir: Path) -> bool:
    """Whether a run seems to be writing to a directory; of one on another machine its last touch has to tell."""
    path = workdir / NAME
    try:
        other, age = _read(path), time.time() - path.stat().st_mtime
    except OSError:
        return False
    return held(workdir) if other.get("place") == _place() else age <= DEAD


def _take(path: Path, mine: dict[str, Any], say: Callable[[str], None], beat: float, dead: float) -> None:
    """Creates the file, or replaces that of a dead holder; who creates `.taken` may replace."""
    while True:
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(mine, file)
            return
        except FileExistsError:
            pass
        other = _await_death(path, say, beat, dead)
        if other is None:
            continue
        taken = path.with_name(f".{NAME}.taken")
        try:
            os.close(os.open(taken, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            # Another process is just taking over; if it has died in these few lines, its mark is removed.
            with contextlib.suppress(FileNotFoundError):
                if _age(taken) > dead:
                    taken.unlink()
            time.sleep(min(beat, 0.2))
            continue
        try:
            if _read(path) == other:
                say(f"{path.parent}: taking over from {_who(other)}, which has ended")
                part = path.with_name(f".{NAME}.{mine['token']}")
                part.write_text(json.dumps(mine), encoding="utf-8")
                part.replace(path)
                return
        finally:
            taken.unlink(missing_ok=True)


def _await_death(path: Path, say: Callable[[str], None], beat: float, dead: float) -> dict[str, Any] | None:
    """What the file of a dead holder says, None if it is gone meanwhile.

    Raises:
      ValueError: the holder lives.
    """
    seen, said = None, False
    while True:
        try:
            other, touched, age = _read(path), path.stat().st_mtime_ns, _age(path)
        except FileNotFoundError:
            return None
        here = bool(other) and other.get("place") == _place()
        alive = _started(other["pid"]) == other.get("started") if here else seen not in (None, touched)
        if alive:
            raise ValueError(
                f"a run is writing here: {path.parent} is held by {_who(other)}; wait for it or stop it, or choose "
                "another --workdir"
            )
        if here or age > dead:
            return other
        if not said:
            say(
                f"{path.parent} is held by {_who(other)}, on another machine; waiting up to {dead:.0f} s to see if it "
                "lives"
            )
            said = True
        seen = touched
        time.sleep(min(beat / 2, 1.0))


def _keep_fresh(
    path: Path, mine: dict[str, Any], ended: threading.Event, beat: float, say: Callable[[str], None]
) -> None:
    """Touches the file now and then. Whoever finds it another's must not write here any more, and ends."""
    while not ended.wait(beat):
        try:
            other = _read(path)
            if other.get("token") == mine["token"]:
                os.utime(path)
                continue
        except FileNotFoundError:
            with contextlib.suppress(OSError), path.open("x", encoding="utf-8") as file:
                json.dump(mine, file)  # somebody deleted it
            continue
        except OSError:
            continue  # the file system is away for a moment
        if other and not ended.is_set():
            say(f"error: {path.parent} was taken over by {_who(other)} while this process stood still; it ends")
            sys.stderr.flush()
            os._exit(1)


def _read(path: Path) -> dict[str, Any]:
    """What a lease says; empty while it is being written, or where it is damaged."""
    if not stat.S_ISREG(path.stat().st_mode):
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}
    except (ValueError, RecursionError):
        return {}


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    probe = path.with_name(f".{NAME}.{secrets.token_hex(8)}.probe")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _me() -> dict[str, Any]:
    return {"place": _place(), "host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def _place() -> str:
    """Where process numbers mean the same: a machine since it was started, and a container in it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process of this machine was started, in whatever unit; None where there is none, or it has ended."""
    try:
        # The name in brackets may hold anything; behind it are the state and, as the 20th, the start.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        pass
    if os.path.exists("/proc/self/stat"):
        return None
    try:
        os.kill(pid, 0)
    except OSError as error:
        return "unknown" if isinstance(error, PermissionError) else None
    return "unknown"


def _who(other: dict[str, Any]) -> str:
    """A holder in words; what a damaged file says is not trusted to be short or printable."""
    if not other:
        return "a process that has not said who it is"
    clean = lambda name: "".join(c for c in str(other.get(name, "?"))[:80] if c.isprintable())
    return f"process {clean('pid')} on {clean('host')} since {clean('since')}"
