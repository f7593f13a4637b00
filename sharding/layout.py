"""A mesh and the rule table as the object the algorithm places its arrays with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from models.axes import Axes, placed
from sharding.processes import Processes
from sharding.rules import ACTIVATION, DECODE, TRAIN, partition, shardings


class MeshPlace:
    """A mesh as the model sees it; see `models.axes.Place`."""

    def __init__(self, mesh: Mesh, flash: bool):
        self.mesh = mesh
        self.flash = flash
        self.device: Any = mesh.devices.flat[0]

    def constrain(self, x: jax.Array, axes: Axes) -> jax.Array:
        """Pins the layout of an activation whose axes are named."""
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, self._spec(x, axes)))

    def per_device(self, function: Callable, arrays: Sequence[jax.Array], axes: Sequence[Axes]) -> jax.Array:
        """Calls the function on each device's part of the arrays; the result lies as the first of them."""
        specs = tuple(self._spec(x, names) for x, names in zip(arrays, axes, strict=True))
        # Pallas kernels do not say over which axes their results vary, so that is not checked.
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=specs[0], check_vma=False)(*arrays)

    def ways(self, axis: str, size: int) -> int:
        """Into how many parts an axis of that size is cut."""
        spec = partition((axis,), (size,), self.mesh, TRAIN, ACTIVATION)
        return size // NamedSharding(self.mesh, spec).shard_shape((size,))[0]

    def _spec(self, x: jax.Array, axes: Axes) -> PartitionSpec:
        return partition(axes, x.shape, self.mesh, TRAIN, ACTIVATION)


class Layout:
    """Where every array of a run lives; see `igrpo_jax.protocols.Layout`."""

    def __init__(self, mesh: Mesh, processes: Processes | None = None):
        self.mesh = mesh
        self.processes = processes or Processes()
        self.num_row_shards = mesh.shape["data"] * mesh.shape["fsdp"]
        self._replicate = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def rows(self, tree: Any, axis: int = 0) -> Any:
        """Puts host arrays on the devices with `axis` split over the row shards."""
        return self._put(tree, PartitionSpec(*(None,) * axis, TRAIN["batch"]))

    def everywhere(self, tree: Any) -> Any:
        """Puts host values on the devices, a copy on each."""
        return self._put(tree, PartitionSpec())

    def fetch(self, tree: Any) -> Any:
        """Arrays on the devices as host arrays, whole in every process."""
        return jax.device_get(self._replicate(tree) if self.mesh.is_multi_process else tree)

    def agree(self, value: int) -> int:
        """One process's value in all of them."""
        return self.processes.agree(value)

    def train_shardings(self, tree: Any) -> Any:
        """Shardings of policy-shaped trees (parameters, gradients, moments) for updating."""
        return shardings(tree, self.mesh, TRAIN)

    def decode_shardings(self, tree: Any) -> Any:
        """Shardings of a sampling view."""
        return shardings(tree, self.mesh, DECODE)

    @contextmanager
    def active(self, *, flash: bool = True) -> Iterator[None]:
        """Makes this layout's activation constraints hold for whatever is traced inside.

        The mesh itself is not set (`jax.set_mesh`): every sharding here names it, and orbax fails to save under one.
        """

        with placed(MeshPlace(self.mesh, flash)):
            yield

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        place = NamedSharding(self.mesh, spec)
        if not self.mesh.is_multi_process:
            return jax.device_put(tree, place)

        # `device_put` would compare the values of all processes, a collective for each array.
        def put(x: Any) -> jax.Array:
            if isinstance(x, jax.Array) and not x.is_fully_addressable:
                return jax.device_put(x, place)
            if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(put(jax.random.key_data(x)))
            host = np.asarray(x)
            return jax.make_array_from_callback(host.shape, place, host.__getitem__)

        # An explicit transfer like `device_put`, though JAX does not count it as one.
        with jax.transfer_guard_host_to_device("allow"):
            return jax.tree.map(put, tree)


class PlannedLayout(Layout):
    """A layout over devices that need not be there: puts shapes where the real one puts arrays."""

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        place = NamedSharding(self.mesh, spec)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)
