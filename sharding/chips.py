"""What accelerators can do, from their makers' data sheets."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Chip(NamedTuple):
    """One device.

    Attributes:
      platform: as JAX spells it.
      memory: bytes.
      bandwidth: of the memory, bytes/s.
      flops: dense bfloat16 operations/s.
      link: bytes/s that it can receive over all its links inside a slice or node, while it sends as many.
      network: bytes/s that a node of GPUs can receive from others; 0 for TPUs, whose links go on to the next host.
      host: devices of a node.
      source: where the numbers are from.
      description: of a GPU, for its compiler: what CUDA reports of such a device.
    """

    platform: str
    memory: float
    bandwidth: float
    flops: float
    link: float
    network: float
    host: int
    source: str
    description: Mapping[str, float | int | str] = MappingProxyType({})

    def weights_link(self, fsdp: int, tensor: int) -> float:
        """Bytes/s at which a device receives weights that are split over a mesh of these sizes.

        A node receives from others what it hands on to its devices: the same to each, or to each tensor place its own.
        """
        if not self.network or fsdp * tensor <= self.host:
            return self.link
        return min(self.link, self.network / min(tensor, self.host))


_CLOUD = "Google Cloud TPU documentation, system architecture"
_NODE = "data sheet, SXM; network of its DGX: one port of 200 or 400 Gb/s a GPU"
_A100 = {"core_count": 108, "fpus_per_core": 64, "shared_memory_per_core": 167936, "l2_cache_size": 41943040,
         "clock_rate_ghz": 1.41, "shared_memory_per_block_optin": 166912, "major": 8}  # fmt: skip
_H100 = {"core_count": 132, "fpus_per_core": 128, "shared_memory_per_core": 233472, "l2_cache_size": 52428800,
         "clock_rate_ghz": 1.98, "shared_memory_per_block_optin": 232448, "major": 9}  # fmt: skip

CHIPS = {
    "v5e": Chip("tpu", 16e9, 819e9, 197e12, 200e9, 0, 8, _CLOUD),
    "v5p": Chip("tpu", 95e9, 2765e9, 459e12, 600e9, 0, 4, _CLOUD),
    "v6e": Chip("tpu", 32e9, 1640e9, 918e12, 448e9, 0, 8, _CLOUD),
    "a100-40gb": Chip("cuda", 42.3e9, 1555e9, 312e12, 300e9, 200e9, 8, f"NVIDIA A100 {_NODE}", _A100),
    "a100-80gb": Chip("cuda", 85.1e9, 2039e9, 312e12, 300e9, 200e9, 8, f"NVIDIA A100 {_NODE}", _A100),
    "h100": Chip("cuda", 85.0e9, 3352e9, 989e12, 450e9, 400e9, 8, f"NVIDIA H100 {_NODE}", _H100),
    "h200": Chip("cuda", 150.7e9, 4800e9, 989e12, 450e9, 400e9, 8, f"NVIDIA H200 {_NODE}", _H100),
}
"""By the name that `--topology` uses."""
