"""`--topology v5p:2x2x2`: devices that need not be there, to compile for."""

import difflib
import functools
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

from sharding.chips import CHIPS, Chip

GOOGLE, GOOGLE_NETWORK_CARD = "0x1ae0", "0x0042"
"""PCI's numbers of a vendor, and of a device of theirs that is no TPU."""


def skip_absent_tpu() -> None:
    """Keeps JAX from asking for a TPU where there is none; must be called before anything asks for a device.

    Where libtpu is installed, for `--job plan` say, JAX loads it in every run, and it complains of a host without TPUs.
    Platforms that the user has named stay, and so does everything where a plugin other than CUDA's is installed.
    """
    others = {point.name.removeprefix("xla_")[:4] for point in metadata.entry_points(group="jax_plugins")}
    named = getattr(jax.config, "jax_platforms", None)  # pyright does not know the name
    if named or not importlib.util.find_spec("libtpu") or others - {"cuda"} or has_tpu(Path("/")):
        return
    jax.config.update("jax_platforms", "cuda,cpu" if others else "cpu")


def has_tpu(root: Path) -> bool:
    """Whether a host whose file system begins there may have TPUs."""
    cards = [path.parent for path in root.glob("sys/bus/pci/devices/*/vendor") if path.read_text().strip() == GOOGLE]
    chips = [card for card in cards if (card / "device").read_text().strip() != GOOGLE_NETWORK_CARD]
    return bool(chips) or any(root.glob("dev/accel*")) or any(root.glob("dev/vfio/[0-9]*"))


class Target(NamedTuple):
    """Devices to compile for.

    Attributes:
      devices: all of them.
      platform: for which their programs are lowered, as JAX spells it.
      chip: what one can do; None for this machine's own devices.
    """

    devices: Sequence[Any]
    platform: str
    chip: Chip | None


def find_target(text: str) -> Target:
    """The devices of `v5p:2x2x2` (a TPU slice), `a100-80gb:8` (GPUs), or `local` (those that are here).

    Raises:
      ValueError: unknown, or the package with its compiler is not installed.
    """
    if text in ("", "local"):
        return Target(jax.devices(), jax.default_backend(), None)
    name, _, shape = text.partition(":")
    if name not in CHIPS:
        near = difflib.get_close_matches(name, CHIPS, 1, 0.0)[0]
        raise ValueError(f"--topology {text!r} is unknown; did you mean {near}? Known: {', '.join(CHIPS)}, local")
    chip = CHIPS[name]
    pattern, example = (r"\d+(x\d+)+", "2x2x2") if chip.platform == "tpu" else (r"\d+", "8")
    if not re.fullmatch(pattern, shape):
        raise ValueError(f"--topology {text!r} has no size; write {name}:{example}")
    return Target(_devices(name, shape), chip.platform, chip)


def grown(text: str, times: int) -> str:
    """The topology with a power of two times as many devices.

    >>> grown("v5e:2x4", 2), grown("v5p:2x2x2", 4), grown("a100-80gb:8", 2)
    ('v5e:4x4', 'v5p:2x4x4', 'a100-80gb:16')
    """
    name, _, shape = text.partition(":")
    sizes = [int(size) for size in shape.split("x")]
    while times > 1:
        sizes = sorted([2 * min(sizes), *sorted(sizes)[1:]])
        times //= 2
    return f"{name}:{'x'.join(map(str, sizes))}"


@functools.cache
def _devices(name: str, shape: str) -> Sequence[Any]:
    """The same objects at every call, for JAX takes others for other devices."""
    chip = CHIPS[name]
    return _tpu(name, shape) if chip.platform == "tpu" else _gpu(name, chip, int(shape))


def _tpu(name: str, shape: str) -> Sequence[Any]:
    from jax.experimental import topologies

    # Or it looks for a TPU host's metadata, for minutes, and complains.
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": f"{name}-8", "TPU_WORKER_HOSTNAMES": "localhost"}
    for variable, value in quiet.items():
        os.environ.setdefault(variable, value)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{shape}").devices
    except (ImportError, RuntimeError, ValueError) as error:
        raise ValueError(_unavailable(f"{name}:{shape}", "plan-tpu", error)) from error


def _gpu(name: str, chip: Chip, count: int) -> Sequence[Any]:
    from jax.experimental import topologies

    here = min(count, chip.host)
    if count % here:
        raise ValueError(f"--topology {name}:{count} is not whole nodes of {chip.host}; use {name}:{chip.host}")
    try:
        return topologies.get_topology_desc(
            platform="cuda", topology_name=f"{name}:{count}", target_config=description(name, chip),
            topology=f"1x{count // here}x{here}",
        ).devices  # fmt: skip
    except (ImportError, RuntimeError, ValueError) as error:
        raise ValueError(_unavailable(f"{name}:{count}", "plan-cuda", error)) from error


def description(name: str, chip: Chip) -> str:
    """A GPU as XLA's compiler wants to be told of it, a text proto; the limits are those of every CUDA device."""
    own = dict(chip.description)
    major = own.pop("major")
    fields = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "shared_memory_per_block": 49152,
        "threads_per_core_limit": 2048, "block_dim_limit_x": 2147483647, "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535, "registers_per_core_limit": 65536, "registers_per_block_limit": 65536,
        "memory_bandwidth": math.floor(chip.bandwidth), "device_memory_size": math.floor(chip.memory), **own,
    }  # fmt: skip
    info = "\n".join(f"  {key}: {value}" for key, value in fields.items())
    return (
        f"gpu_device_info {{\n{info}\n  cuda_compute_capability {{ major: {major} }}\n}}\n"
        f'platform_name: "CUDA"\ndnn_version_info {{ major: 9 minor: 8 }}\ndevice_description_str: "{name}"\n'
    )


def _unavailable(text: str, extra: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return f"--topology {text} cannot be compiled for ({reason}); pip install '.[{extra}]', or check the shape"
