"""Seconds and memory of what runs on a device, and what device that is."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.contest import machine
from benchmarks.worker import versions

PATIENCE = 1.0
"""Seconds that one figure is measured for, three runs at least."""


class Timing(NamedTuple):
    """Seconds of a run: the best, and the median."""

    best: float
    median: float


def timed(function: Callable[..., Any], *arguments: Any) -> Timing:
    """Seconds of a call, after a warm-up, until its result is there."""
    once = 0.0
    for _ in range(2):
        started = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        once = time.perf_counter() - started
    burst = max(1, int(0.02 / once))  # many programs in an accelerator's queue hide the host
    runs: list[float] = []
    while len(runs) < 3 or (sum(runs) * burst < PATIENCE and len(runs) < 100):
        started, result = time.perf_counter(), None
        for _ in range(burst):
            result = function(*arguments)
        jax.block_until_ready(result)
        runs.append((time.perf_counter() - started) / burst)
    return Timing(min(runs), statistics.median(runs))


def temporary_mb(compiled: Any) -> float:
    """Megabytes a device that a program needs beside its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def device() -> dict[str, Any]:
    """What this runs on, and with what."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {"device": name, **machine(cores), "versions": versions("jax", "jaxlib", "flax", "optax", "numpy")}


def rounded(value: float) -> float:
    """Four digits.

    >>> rounded(123456.7)
    123500.0
    """
    return float(f"{value:.4g}")


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float | None:
    """Slope of a straight line through the logarithms; None where there is none.

    >>> exponent([1, 2, 4], [3.0, 12.0, 48.0]), exponent([1, 2], [0.0, 1.0])
    (2.0, None)
    """
    if len(set(sizes)) < 2 or min(costs) <= 0:
        return None
    return round(float(np.polyfit(np.log(sizes), np.log(costs), 1)[0]), 3)
