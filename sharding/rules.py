"""The one table from logical axes to mesh axes, and what follows from it for every array of a run."""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MeshAxes = str | tuple[str, ...] | None

TRAIN: dict[str, MeshAxes] = {
    "batch": ("data", "fsdp"),
    "layers": None,
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "mlp": "tensor",
    "vocab": "tensor",
}
"""Updating: FSDP over the width, tensor parallel over heads, MLP and vocabulary."""

DECODE: dict[str, MeshAxes] = TRAIN | {"embed": None}
"""Decoding: weights whole on every fsdp place, so that a token costs no gather of weights."""

REPLICABLE = ("heads", "kv_heads", "vocab")
"""Axes that are replicated where the mesh does not divide them; for any other axis that is an error.

An activation's vocabulary is divided all the same, into parts of which the last is padded: XLA does that inside a
program, but takes no such array.
"""


ACTIVATION = "activation"
"""What `partition` is told of arrays that exist inside programs only."""


def partition(
    axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh, rules: dict[str, MeshAxes], what: str = "array"
) -> PartitionSpec:
    """The partition of an array whose axes are named.

    Raises:
      ValueError: the mesh does not divide an axis; names array, axis, size and mesh.
    """
    spec: list[MeshAxes] = []
    for name, size in zip(axes, shape, strict=True):
        target = None if name is None else rules[name]
        names = (target,) if isinstance(target, str) else target or ()
        ways = 1
        for axis in names:
            ways *= mesh.shape[axis]
        if size % ways and name not in REPLICABLE:
            raise ValueError(
                f"{what}: its {name} axis of {size} is not divisible by {ways}, the mesh's {' x '.join(names)}; "
                f"choose a mesh whose {' x '.join(names)} divides {size}"
            )
        if size % ways and not (name == "vocab" and what == ACTIVATION):
            target = None
        spec.append(target)
    return PartitionSpec(*spec)


def shardings(tree: Any, mesh: Mesh, rules: dict[str, MeshAxes]) -> Any:
    """Shardings for every leaf of a tree of parameters, from the axis names that each carries.

    Leaves without names (step counters, Adam's count) are replicated. Works on arrays and on `jax.eval_shape` results.

    Raises:
      ValueError: the mesh does not divide the tree; names meshes of as many devices that do.
    """

    def of(path: Any, leaf: Any) -> Any:
        axes = getattr(leaf, "axes", None)
        if axes is None:
            return NamedSharding(mesh, PartitionSpec())
        spec = partition(axes, jax.tree.leaves(leaf)[0].shape, mesh, rules, jax.tree_util.keystr(path).lstrip("."))
        return jax.tree.map(lambda _: NamedSharding(mesh, spec), leaf)

    try:
        return jax.tree_util.tree_map_with_path(of, tree, is_leaf=_is_named)
    except ValueError as error:
        found = " or ".join(f"--mesh {text}" for text in meshes_for(tree, mesh, rules))
        raise ValueError(f"{error}; of {mesh.size} devices that is {found or 'none: take fewer'}") from None


def _is_named(leaf: Any) -> bool:
    return hasattr(leaf, "axes")


def meshes_for(tree: Any, mesh: Mesh, rules: dict[str, MeshAxes], most: int = 3) -> list[str]:
    """Meshes of as many devices that divide every axis of a tree of parameters, those nearest to this one first.

    Nearest is what splits single matrices alike, and then what splits parameters most: that saves memory.
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree, is_leaf=_is_named) if _is_named(leaf)]
    sizes = {pair for leaf in leaves for pair in zip(leaf.axes, jax.tree.leaves(leaf)[0].shape, strict=True)}
    divided = {
        axis: math.gcd(*(size for name, size in sizes if rules[name] == axis and name not in REPLICABLE))
        for axis in ("fsdp", "tensor")
    }
    found = [
        (abs(math.log(tensor / mesh.shape["tensor"])), -fsdp, f"{mesh.size // (fsdp * tensor)}x{fsdp}x{tensor}")
        for tensor in range(1, mesh.size + 1)
        for fsdp in range(1, mesh.size + 1)
        if mesh.size % (fsdp * tensor) == 0 and divided["fsdp"] % fsdp == 0 and divided["tensor"] % tensor == 0
    ]
    return [text.removeprefix("1x") for *_, text in sorted(found)[:most]]
