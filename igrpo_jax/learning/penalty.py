"""A KL penalty that goes off the reward: it changes advantages, so it is known before anything is trained on."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from igrpo_jax.advantages import group_advantages
from igrpo_jax.config import AlgorithmConfig, Config
from igrpo_jax.learning.learner import Learner
from igrpo_jax.learning.updates import completions
from igrpo_jax.losses import kl_estimate
from igrpo_jax.rollout import Rollout, Stage
from igrpo_jax.types import PyTree


def trained(experience: Rollout, algorithm: AlgorithmConfig) -> list[int]:
    """Which stages of a rollout are trained on."""
    last = len(experience.stages) - 1
    return [0, last] if last and algorithm.draft_weight > 0 else [last]


def with_penalty(
    learner: Learner,
    params: PyTree,
    reference: PyTree,
    experience: Rollout,
    *,
    config: Config,
    prompt_length: Callable[[int], int],
) -> tuple[Rollout, dict[str, float]]:
    """A rollout with the advantages of `R - β Σ_t KL_t` in the stages that are trained on.

    The sum is over a completion's tokens, as in RLOO (arXiv 2402.14740). It makes groups differ whose rewards are
    equal, so that these are trained on too. Rewards stay what the reward functions gave: drafts are chosen by them.

    Args:
      learner: the compiled programs.
      params: the policy that sampled.
      reference: the frozen policy from which KL is measured.
      experience: as it was sampled.
      config: the experiment.
      prompt_length: gives the static prompt length of a stage, by its number.

    Returns:
      The rollout, and `kl`, nats a token of the last stage.
    """
    algorithm, stages, kl = config.algorithm, list(experience.stages), 0.0
    for number in trained(experience, algorithm):
        stage = stages[number]
        sums = kl_sums(
            learner, params, reference, stage, config=config, prompt_length=prompt_length, missing=experience.missing
        )
        if not len(sums):
            continue
        rewards = (stage.rewards - algorithm.beta * sums).astype(np.float32)
        advantages = group_advantages(rewards, baseline=algorithm.baseline, scale=algorithm.scale_rewards)
        stages[number] = stage._replace(advantages=np.asarray(advantages))
        kl = float(sums.sum() / stage.samples.lengths.sum())
    return experience._replace(stages=stages), {"kl": kl}


def kl_sums(
    learner: Learner,
    params: PyTree,
    reference: PyTree,
    stage: Stage,
    *,
    config: Config,
    prompt_length: Callable[[int], int],
    missing: int = 0,
) -> np.ndarray:
    """KL of every completion from the reference, float32[P, G] in nats, estimated from its own tokens."""
    seen = replace(config, algorithm=replace(config.algorithm, mask_truncated=False))
    whole = completions(stage, prompt_length, seen, missing)
    temperature = config.sampling.temperature or 1.0
    ours, theirs = (
        learner.score_all(one, whole, rows=config.train.micro_batch, temperature=temperature)
        for one in (params, reference)
    )
    # Past each length both are 0, and so is their estimate.
    return np.asarray(kl_estimate(theirs - ours, config.algorithm.kl_estimator)).sum(axis=2)[: len(stage.rewards)]
