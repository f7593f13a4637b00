"""Programs compiled from shapes alone, for devices that need not be there."""

import re
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from igrpo_jax.planning.collectives import traffic
from igrpo_jax.types import PyTree


class Compiled(NamedTuple):
    """What a compiled program takes of each device.

    Attributes:
      name: of the program.
      arguments, outputs, temporary: bytes.
      aliased: bytes of outputs that take the place of arguments.
      traffic: bytes that a device receives, by kind of collective.
      kernels: targets of its custom calls.
      unknown_loops: loops whose number of turns the compiler does not tell; their traffic counts once.
      seconds: of compiling.
      refused: the compiler's words where the program does not fit, "" where it does.
    """

    name: str
    arguments: int = 0
    outputs: int = 0
    temporary: int = 0
    aliased: int = 0
    traffic: Mapping[str, float] = MappingProxyType({})
    unknown_loops: int = 0
    kernels: tuple[str, ...] = ()
    seconds: float = 0.0
    refused: str = ""

    @property
    def peak(self) -> int:
        """Bytes while it runs, its arguments included."""
        return self.arguments + self.outputs - self.aliased + self.temporary


class NoRoom(Exception):
    """A device has no room for a program; the recorder knows which and why."""


class Recorder:
    """Compiles what it is handed, and keeps what the compiler says."""

    def __init__(self, platform: str, say: Callable[[str], None]) -> None:
        """`platform`: of the devices, as JAX spells it; `say` hears of each program, for some take minutes."""
        self.programs: list[Compiled] = []
        self._platform, self._say = platform, say

    def wrap(self, name: str, jitted: Any) -> Callable:
        """A function that compiles the jitted one instead of calling it."""
        return lambda *args, **kwargs: self.compile(name, jitted.trace(*args, **kwargs))

    def compile(self, name: str, traced: Any) -> PyTree:
        """Compiles for the devices of the arguments' shardings; the outputs as shapes in their places.

        Raises:
          ValueError: the compiler fails.
          NoRoom: there is no room for the program on such a device; it is recorded all the same.
        """
        started = time.perf_counter()
        try:
            program = traced.lower(lowering_platforms=(self._platform,)).compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise ValueError(f"{name} cannot be compiled: {' '.join(str(error).split())[:300]}") from error
            self.programs.append(Compiled(name, seconds=time.perf_counter() - started, refused=_needed(str(error))))
            raise NoRoom(name) from error
        memory = program.memory_analysis()
        text = program.as_text()
        moved, unknown = traffic(text)
        kernels = tuple(sorted(set(re.findall(r'custom_call_target="([^"]+)"', text))))
        self._say(f"compiled {name} in {time.perf_counter() - started:.0f} s")
        self.programs.append(
            Compiled(
                name, memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes,
                memory.alias_size_in_bytes, moved, unknown, kernels, time.perf_counter() - started,
            )
        )  # fmt: skip
        place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
        return jax.tree.map(place, traced.out_info, program.output_shardings)


def held(tree: PyTree) -> int:
    """Bytes that each device holds of a tree whose arrays, or shapes, have shardings."""
    leaves = jax.tree.leaves(tree)
    count = lambda x: int(np.prod(x.sharding.shard_shape(x.shape))) if x.shape else 1
    return sum(count(x) * x.dtype.itemsize for x in leaves)


def _needed(message: str) -> str:
    """The sentence of an out-of-memory error that has the numbers."""
    lines = message.splitlines()
    return next((line for line in lines if re.search("[Ee]xceed|[Uu]sed|allocat", line)), lines[0]).strip()[:300]
