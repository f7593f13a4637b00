"""The one table from logical axes to mesh axes, and what follows from it for every array of a run."""

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

REPLICABLE = ("heads", "kv_heads")
"""Axes that are replicated where the mesh does not divide them; for any other axis that is an error."""


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
        if size % ways:
            if name not in REPLICABLE:
                raise ValueError(
                    f"{what}: its {name} axis of {size} is not divisible by {ways}, the mesh's {' x '.join(names)}; "
                    f"choose a mesh whose {' x '.join(names)} divides {size}"
                )
            target = None
        spec.append(target)
    return PartitionSpec(*spec)


def shardings(tree: Any, mesh: Mesh, rules: dict[str, MeshAxes]) -> Any:
    """Shardings for every leaf of a tree of parameters, from the axis names that each carries.

    Leaves without names (step counters, Adam's count) are replicated. Works on arrays and on `jax.eval_shape` results.
    """

    def of(path: Any, leaf: Any) -> Any:
        axes = getattr(leaf, "axes", None)
        if axes is None:
            return NamedSharding(mesh, PartitionSpec())
        spec = partition(axes, jax.tree.leaves(leaf)[0].shape, mesh, rules, jax.tree_util.keystr(path).lstrip("."))
        return jax.tree.map(lambda _: NamedSharding(mesh, spec), leaf)

    return jax.tree_util.tree_map_with_path(of, tree, is_leaf=lambda x: hasattr(x, "axes"))
