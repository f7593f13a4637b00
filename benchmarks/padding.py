"""The update on completions of uneven lengths: packed against padded.

    make bench BENCHMARKS=benchmarks/padding.py
    PYTHONPATH=. python benchmarks/padding.py --model random:qwen2.5-1.5b --problems 24 --new 4096 --micro-batch 4

Prompts and completions are as long as the refinements of `benchmarks/data/lengths.json`, scaled from its limit of 512
tokens to `--new`. Packed is what a run does; padded has the same buckets of lengths, and computes every place in them.
They take their optimizer steps in turns; medians, and one JSON line at the end.
"""

import argparse
import json
import statistics
from pathlib import Path
from unittest.mock import patch

import numpy as np

from benchmarks.measure import device, rounded
from benchmarks.update import of_policy, step
from igrpo_jax.config import Config, ModelConfig, TrainConfig
from igrpo_jax.learning import microbatches
from igrpo_jax.learning.microbatches import Completions, Portions, Shape, buckets
from igrpo_jax.types import Batch
from jobs.arguments import Launch
from jobs.devices import start_devices
from jobs.parts import initial_policy, make_learner
from models.formats.load import find

RECORDED = 512
"""Tokens that the recorded completions were limited to."""


def main() -> None:
    """Measures and prints."""
    options = arguments()
    model = ModelConfig(source=options.model, dtype=options.dtype, remat=options.remat)
    config = Config(model=model, train=TrainConfig(micro_batch=options.micro_batch))
    layout = start_devices(Launch(config="", mesh=options.mesh))
    with layout.active():
        found = find(options.model)
        learner = make_learner(config, layout, found.config)
        whole = completions(options, found.config.vocab_size)
        terms = {"packed": learner.cut(whole, rows=options.micro_batch)}
        with patch.object(microbatches, "shapes", padded):
            terms["padded"] = learner.cut(whole, rows=options.micro_batch)
        state = learner.init(initial_policy(config, layout, found))
        seconds: dict[str, list[float]] = {name: [] for name in terms}
        for number in range(options.rounds + 1):
            for name, term in terms.items():
                state, took = step(learner, state, term)
                print(f"{number}/{options.rounds} {name} {took:8.2f} s", flush=True)
                if number:  # the first one compiles
                    seconds[name].append(took)
    report(options, terms, seconds)


def padded(prompt: int, longest: int, group: int) -> tuple[Shape, ...]:
    """A slot for every place."""
    pairs = [(length, size) for size in buckets(longest, 2) for length in buckets(prompt, 1)]
    return tuple(Shape(length, size, length + group * size) for length, size in pairs)


def completions(options: argparse.Namespace, vocabulary: int) -> Completions:
    """Random tokens and advantages; lengths as recorded."""
    record = json.loads((Path(__file__).parent / "data" / "lengths.json").read_text(encoding="utf-8"))
    scaled = lambda numbers: np.maximum(np.array(numbers) * options.new // RECORDED, 1).astype(np.int32)
    lengths, prompts = scaled(record["completions"][1]), scaled(record["prompts"][1])
    lengths, prompts = lengths[: options.problems], prompts[: options.problems]
    random = np.random.default_rng(0)
    draw = lambda *shape: random.integers(0, vocabulary, shape).astype(np.int32)
    batch = Batch(lengths, random.normal(size=lengths.shape).astype("float32"))
    return Completions(draw(len(prompts), prompts.max()), prompts, draw(*lengths.shape, options.new), batch)


def report(options: argparse.Namespace, terms: dict[str, Portions], seconds: dict[str, list[float]]) -> None:
    """A table and the JSON line."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    tokens = terms["packed"].real_tokens
    print(f"\n{options.problems} problems, completions of up to {options.new} tokens as recorded: {tokens} real tokens")
    for name, term in terms.items():
        shown = f"{term.computed_tokens} tokens computed in {len(term.parts)} micro-batches"
        print(f"{name:8s} {median[name]:8.2f} s, {shown}")
    print(f"packed over padded: {median['packed'] / median['padded']:.2f}")
    result = {
        "benchmark": "padding",
        **device(),
        **vars(options),
        "seconds": {name: [rounded(value) for value in values] for name, values in seconds.items()},
        "packed_over_padded": rounded(median["packed"] / median["padded"]),
        "real_tokens": tokens,
        "computed_tokens": {name: term.computed_tokens for name, term in terms.items()},
    }
    print(json.dumps(result))


def arguments() -> argparse.Namespace:
    """The shapes."""
    parser = of_policy(__doc__)
    parser.add_argument("--remat", default="dots", choices=("full", "dots", "none"))
    parser.add_argument("--problems", type=int, default=6, help="at most 24")
    parser.add_argument("--new", type=int, default=256, help="tokens of the longest completions")
    parser.add_argument("--micro-batch", type=int, default=8, help="completions a device trains on at once")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
