"""The parts of a run, made from a config: policy, learner, data, and all of them together."""

from functools import partial
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config
from igrpo_jax.edges.printable import printable

FOLLOWERS = 256
"""Threads at most in which finished groups are graded where a judge is asked; they do nothing but wait for it."""


def assemble(config: Config, layout: Any, found: Any, reward: Any, data: Any = None, **options: Any) -> Any:
    """Data, prompts, sampler and learner as one `igrpo_jax.train.Run`; options as of `Sampler`."""
    from igrpo_jax.prompts import Prompter, beyond_positions, refinement_limit
    from igrpo_jax.sampling.pools import evaluation_pool, pool_of
    from igrpo_jax.sampling.sampler import Sampler
    from igrpo_jax.train import Run
    from igrpo_jax.types import Shapes
    from models import decoder

    tokenizer = found.tokenizer
    prompter = Prompter(tokenizer, config.prompt, stop_ids=found.stop_ids)
    layout.processes.warn(prompter.warning and printable(prompter.warning))
    stops = list(dict.fromkeys([*found.stop_ids, *prompter.stops(config.sampling.stop_strings)]))
    data = data or read_data(config, layout, found)
    limit = partial(refinement_limit, prompter, tokenizer, config.prompt)
    shapes = Shapes(
        prompt=data.longest_prompt,
        refinement=limit(data.longest_prompt),
        completion=config.sampling.max_completion_length,
    )
    answers = max(shapes.completion, config.eval.max_completion_length if data.evals else 0)
    asked = shapes.refinement if config.algorithm.num_drafts or config.eval.refine else shapes.prompt
    layout.processes.warn(beyond_positions(asked, answers, found.config.max_position))
    pool = pool_of(config, layout.num_row_shards, shapes)
    followers = FOLLOWERS if getattr(reward, "waits", False) and layout.processes.count == 1 else 1
    make = partial(
        Sampler, decoder, layout, seed=config.seed, stop_ids=stops, decode=prompter.text, followers=followers, **options
    )
    sampler = evaluator = make(pool=pool)
    if data.evals:
        other = evaluation_pool(pool, config, layout.num_row_shards, shapes, max(map(len, data.evals.values())))
        evaluator = sampler if other == pool else make(pool=other)
    learner = make_learner(config, layout, found.config)
    return Run(
        config, layout, learner, sampler, evaluator, prompter, reward, shapes, data.batches, data.evals,
        layout.processes.divide, limit(data.longest_trained),
    )  # fmt: skip


def read_data(config: Config, layout: Any, found: Any, **options: Any) -> Any:
    """The problems that fit into this model's prompts, an `igrpo_jax.data.Data`; options as of `load_problems`."""
    from igrpo_jax.data import load_problems
    from igrpo_jax.prompts import Prompter

    prompter = Prompter(found.tokenizer, config.prompt, stop_ids=found.stop_ids)
    return load_problems(config, count_tokens=prompter.lengths, divide=layout.processes.divide, **options)


def make_learner(config: Config, layout: Any, architecture: Any) -> Any:
    """The learner for a policy of this architecture."""
    from igrpo_jax.learning.learner import Learner
    from models import decoder
    from models.formats.load import abstract

    auto = "float32" if layout.mesh.devices.flat[0].platform == "cpu" else "bfloat16"
    dtype = auto if config.model.dtype == "auto" else config.model.dtype
    shapes = abstract(architecture, remat=config.model.remat)
    return Learner(decoder, layout, config, shapes, dtype=dtype)


def initial_policy(config: Config, layout: Any, found: Any) -> Any:
    """The policy that training starts from, in its place on the mesh."""
    from models.formats.load import load_policy

    return load_policy(found, shardings=layout.train_shardings, remat=config.model.remat, seed=config.seed)


def newest_policy(config: Config, layout: Any, found: Any, learner: Any, workdir: Path) -> tuple[Any, int, str]:
    """The newest checkpoint of the workdir, or the initial policy where there is none; its step, and what it is."""
    params, step = newest_params(workdir, learner, layout)
    if params is not None:
        return params, step, f"step {step} of {workdir}"
    what = f"the initial model {config.model.source}, for {workdir} holds no checkpoint"
    return initial_policy(config, layout, found), 0, what


def newest_params(workdir: Path, learner: Any, layout: Any) -> tuple[Any, int]:
    """Parameters of the newest checkpoint and its step, the same in all processes; None and 0 without one."""
    from igrpo_jax.records.checkpoint import Checkpoints
    from sharding.processes import compare

    checkpoints = Checkpoints(workdir / "checkpoints", keep=None, divide=layout.processes.divide)
    step = checkpoints.latest()
    compare(layout.processes, {f"in {workdir} as its newest checkpoint": step})
    params = None if step is None else checkpoints.restore_params(step, learner.placed)
    checkpoints.close()
    return params, step or 0
