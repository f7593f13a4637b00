"""A mesh and the rule table as the object the algorithm places its arrays with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.axes import constraining
from sharding.rules import DECODE, TRAIN, partition, shardings


class Layout:
    """Where every array of a run lives; see `igrpo_jax.types.Layout`."""

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.num_row_shards = mesh.shape["data"] * mesh.shape["fsdp"]

    def rows(self, tree: Any, axis: int = 0) -> Any:
        """Puts host arrays on the devices with `axis` split over the row shards."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(*(None,) * axis, TRAIN["batch"])))

    def everywhere(self, tree: Any) -> Any:
        """Puts host values on the devices, a copy on each."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def train_shardings(self, tree: Any) -> Any:
        """Shardings of policy-shaped trees (parameters, gradients, moments) for updating."""
        return shardings(tree, self.mesh, TRAIN)

    def decode_shardings(self, tree: Any) -> Any:
        """Shardings of a sampling view."""
        return shardings(tree, self.mesh, DECODE)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes this layout's activation constraints hold for whatever is traced inside.

        The mesh itself is not set (`jax.set_mesh`): every sharding here names it, and orbax fails to save under one.
        """

        def pin(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
            spec = partition(axes, x.shape, self.mesh, TRAIN, "activation")
            return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

        with constraining(pin):
            yield
