"""How long the parts of a step take."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from igrpo_jax.drive import Reward
from igrpo_jax.rewards import Scores


class Clock:
    """Seconds during which something was going on under each name, in one thread or in several."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._inside: Counter[str] = Counter()
        self._since: dict[str, float] = {}

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Counts the time inside under `name`, once if several threads are inside."""
        with self._lock:
            if not self._inside[name]:
                self._since[name] = time.perf_counter()
            self._inside[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside[name] -= 1
                if not self._inside[name]:
                    spent = time.perf_counter() - self._since[name]
                    self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def grading(self, reward: Reward) -> Reward:
        """The same function, timed."""

        def timed(*arguments: Any) -> Scores:
            with self.span("grade"):
                return reward(*arguments)

        return timed
