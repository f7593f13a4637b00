"""`--mesh 8x1` as a device mesh."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "tensor")
"""Mesh axes: whole copies of the parameters, parameters split, single matrices split."""


def parse_mesh(text: str) -> dict[str, int]:
    """Sizes of the mesh axes from `fsdp x tensor` ("8x1"), `data x fsdp x tensor` ("2x4x1") or "fsdp=8,tensor=1".

    Raises:
      ValueError: anything else.
    """
    sizes: dict[str, int] = dict.fromkeys(AXES, 1)
    if re.fullmatch(r"\d+(x\d+){1,2}", text):
        numbers = [int(n) for n in text.split("x")]
        sizes |= dict(zip(AXES[-len(numbers) :], numbers, strict=True))
    elif re.fullmatch(r"\w+=\d+(,\w+=\d+)*", text):
        for part in text.split(","):
            name, _, number = part.partition("=")
            if name not in sizes:
                raise ValueError(f"mesh axis {name!r} is unknown; the axes are {', '.join(AXES)}")
            if text.count(f"{name}=") > 1:
                raise ValueError(f"--mesh {text!r} gives the axis {name} twice; give it once")
            sizes[name] = int(number)
    else:
        raise ValueError(f"--mesh {text!r} is not a mesh; write fsdp x tensor like 8x1, or fsdp=8,tensor=1")
    if min(sizes.values()) < 1:
        raise ValueError(f"--mesh {text!r} has an axis of size 0; every axis is at least 1")
    return sizes


def make_mesh(text: str, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices of this run, or over the given ones.

    Raises:
      ValueError: the mesh does not have as many places as there are devices, or its first axis does not hold the slices
        of several; names meshes that would work.
    """
    sizes = parse_mesh(text)
    places = sizes["data"] * sizes["fsdp"] * sizes["tensor"]
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if places != count:
        fits = [f"{count // t}x{t}" for t in (1, 2, 4, 8) if count % t == 0]
        simulate = f", or --cpu-devices {places} to simulate" if devices[0].platform == "cpu" else ""
        raise ValueError(
            f"--mesh {text} needs {places} devices and there are {count} ({devices[0].device_kind}); "
            f"use --mesh {' or '.join(fits)}{simulate}"
        )
    axes = (AxisType.Auto,) * len(sizes)
    # Devices that are only planned have no slice.
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    if slices == 1:
        # Like `jax.make_mesh`, which refuses 8x2 on a torus of 4x4.
        grid = create_device_mesh(tuple(sizes.values()), devices, allow_split_physical_axes=True)
        return Mesh(grid, tuple(sizes), axis_types=axes)
    if sizes["data"] % slices:
        raise ValueError(
            f"--mesh {text} on {slices} slices would send weights between them; use --mesh {slices}x"
            f"{count // slices}x1, whose first axis is the slices"
        )
    inside = (sizes["data"] // slices, sizes["fsdp"], sizes["tensor"])
    return Mesh(create_hybrid_device_mesh(inside, (slices, 1, 1), devices), tuple(sizes), axis_types=axes)
