"""A judge's replies on disk, so that nothing is paid for twice; a cache that fails costs money and nothing else."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAIT = 5.0
"""Seconds to wait for another process that writes."""


def key_of(request: Any) -> str:
    """Under what a reply is kept: a digest of all that the judge is given, its model's name included."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class Cache:
    """Texts by key in one SQLite file, for any number of threads and processes."""

    def __init__(self, path: Path, say: Callable[[str], None]):
        """Opens the file, or makes it.

        Args:
          path: of the file.
          say: gets a line when the file cannot be used, once; from then on nothing is kept.
        """
        self._path, self._say = path, say
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open = sqlite3.connect(path, timeout=WAIT, check_same_thread=False, isolation_level=None)
            self._open.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def get(self, key: str) -> str | None:
        """The reply under a key, if there is one."""
        rows = self._execute("SELECT reply FROM replies WHERE key = ?", (key,))
        return rows[0][0] if rows and isinstance(rows[0][0], str) else None

    def put(self, key: str, reply: str) -> None:
        """Keeps a reply; half a surrogate pair, which no file holds, is replaced."""
        whole = reply.encode("utf-8", "replace").decode()
        self._execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, whole))

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _execute(self, statement: str, values: tuple[str, ...]) -> list[Any]:
        with self._lock:
            if self._open is None:
                return []
            try:
                return self._open.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                self._give_up(error)
                return []

    def _give_up(self, error: Exception) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None
        self._say(f"warning: the judge's cache {self._path} cannot be used ({error}); replies are not kept")
