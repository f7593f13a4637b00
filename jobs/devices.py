"""The devices that a job runs on, and the processes of its run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from igrpo_jax.config import Config, fields, to_dict
from igrpo_jax.edges.preemption import Stop
from jobs.arguments import Launch


@contextmanager
def devices(launch: Launch, config: Config, stop: Stop) -> Iterator[Any]:
    """The layout of a job, in force for whatever is traced inside; `stop` learns of the run's other processes."""
    layout = start_devices(launch, config)
    stop.join(layout.processes)
    with layout.active(flash=config.model.flash):
        yield layout


def start_devices(launch: Launch, config: Config | None = None) -> Any:
    """The layout over this run's mesh, once its processes have met; turns on the persistent compilation cache.

    On CPU a call returns once its program has ended; GPU and TPU queue programs.
    """
    import jax

    from models.formats.sources import cache_directory
    from sharding.layout import Layout
    from sharding.mesh import make_mesh
    from sharding.processes import compare, connect

    cpu_devices(launch)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # A queued program on CPU takes memory before the one ahead gives its own back, one more for every micro-batch.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    processes = connect(launch.coordinator, launch.process_id, launch.num_processes)
    compare(processes, facts(launch, config or Config()))
    return Layout(make_mesh(launch.mesh or f"{jax.device_count()}x1"), processes)


def cpu_devices(launch: Launch) -> None:
    """Simulates devices, if asked to, and asks for no TPU where there is none."""
    import jax

    from sharding.topology import skip_absent_tpu

    skip_absent_tpu()
    if launch.cpu_devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", launch.cpu_devices)


def facts(launch: Launch, config: Config) -> dict[str, Any]:
    """What must be the same in all processes of a run."""
    from sharding.processes import versions

    values = {f"--{name}": value for name, value in fields(to_dict(config)).items()}
    return {"--mesh": launch.mesh, "--job": launch.job, "--workdir": list(launch.workdir)} | versions() | values
