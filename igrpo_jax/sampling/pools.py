"""The pools that a config trains and evaluates with."""

from igrpo_jax.config import Config
from igrpo_jax.sampling.programs import Pool, make_pool
from igrpo_jax.types import Shapes


def pool_of(config: Config, shards: int, shapes: Shapes) -> Pool:
    """The pool that training samples with, on so many row shards."""
    algorithm = config.algorithm
    return make_pool(
        rows=config.sampling.rows,
        problems=config.train.problems_per_step,
        groups=[n for n in (algorithm.num_drafts, algorithm.num_generations) if n],
        shards=shards,
        prompts=(shapes.prompt, shapes.refinement) if algorithm.num_drafts or config.eval.refine else (shapes.prompt,),
        max_completion_length=shapes.completion,
    )


def evaluation_pool(pool: Pool, config: Config, shards: int, shapes: Shapes, problems: int) -> Pool:
    """The pool that evaluation samples with: training's if it fits, else another that needs no more memory."""
    length = config.eval.max_completion_length or shapes.completion
    groups = [config.eval.num_samples] + [config.eval.num_drafts] * config.eval.refine
    if length <= shapes.completion and all(samples % pool.lanes == 0 for samples in groups):
        return pool
    prompts = (shapes.prompt, shapes.refinement) if config.eval.refine else (shapes.prompt,)
    rows = min(pool.slots * pool.lanes, pool.tokens // (max(prompts) + length)) // shards
    return make_pool(
        rows=max(rows, 1), problems=problems, groups=groups, shards=shards, prompts=prompts,
        max_completion_length=length,
    )  # fmt: skip
