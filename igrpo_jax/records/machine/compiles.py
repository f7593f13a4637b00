"""Counting compilations, so that a recompilation storm is seen and not felt."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


class CompileCount:
    """Programs that XLA has been asked for, cached on disk or not."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Listens to jax's monitoring events."""
        self.count += event == "/jax/core/compile/backend_compile_duration"


@contextmanager
def counting_compiles() -> Iterator[CompileCount]:
    """Counts every compilation inside."""
    counter = CompileCount()
    jax.monitoring.register_event_duration_secs_listener(counter)
    try:
        yield counter
    finally:
        jax.monitoring.unregister_event_duration_listener(counter)
