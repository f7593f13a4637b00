"""How much memory was used at most."""

import resource
import sys

import jax


def peak_gb() -> float:
    """Peak memory in GB (1e9 bytes): of the first device where the platform reports it, else of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
