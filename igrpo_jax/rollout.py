"""The two stages: draft, keep the best draft, refine it. Sampling and rewards are arguments; no model is needed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.advantages import group_advantages, select_draft
from igrpo_jax.config import AlgorithmConfig
from igrpo_jax.prompts import Prompter
from igrpo_jax.rewards import Scores
from igrpo_jax.types import Problem, Sample, Samples

DRAFT, REFINE = 1, 2
"""Stage numbers; part of the random key."""

Reward = Callable[[Sequence[str], Sequence[str], Mapping[str, Sequence[Any]]], Scores]
"""Scores n completions given their n questions and columns of n values."""


class Stage(NamedTuple):
    """What one stage produced.

    Attributes:
      number: DRAFT, REFINE, or one of evaluation's; it fixes the static prompt length.
      prompts: P token lists.
      samples: the completions' tokens.
      texts: P lists of G texts, special tokens left out.
      rewards: float32[P, G], the weighted sum.
      scores: the reward functions' own results, flat [P * G].
      advantages: float32[P, G].
    """

    number: int
    prompts: list[list[int]]
    samples: Samples
    texts: list[list[str]]
    rewards: np.ndarray
    scores: Scores
    advantages: np.ndarray


class Rollout(NamedTuple):
    """One step's experience.

    Attributes:
      problems: P.
      drafts: stage one; None when `num_drafts = 0` (GRPO).
      chosen: int[P], index of the draft in each stage-two prompt; None when there is none.
      refinements: stage two, or GRPO's only stage (number DRAFT): what is trained on.
    """

    problems: list[Problem]
    drafts: Stage | None
    chosen: np.ndarray | None
    refinements: Stage


def rollout(
    problems: Sequence[Problem],
    *,
    sample: Sample,
    reward: Reward,
    prompter: Prompter,
    config: AlgorithmConfig,
    seed: int,
    step: int,
    refinement_limit: int,
    logprobs: bool = False,
) -> Rollout:
    """Samples and scores drafts, puts one of them into the prompt, samples and scores refinements (Algorithm 1).

    Args:
      problems: P of them.
      sample: draws completions of prompts; the same policy serves both stages.
      reward: the same for both stages.
      prompter: renders both prompts.
      config: num_drafts, num_generations, select, tie_break and scale_rewards are read.
      seed: of the run; with `step` and the problem's id it keys the breaking of ties.
      step: training step.
      refinement_limit: tokens that a stage-two prompt may have.
      logprobs: also keep the sampler's log-probabilities of the refinements.

    Returns:
      See `Rollout`.
    """
    bare = [prompter.question(problem.question) for problem in problems]

    def run(prompts: list[list[int]], stage: int, num_samples: int, logprobs: bool) -> Stage:
        ids = [problem.id for problem in problems]
        samples = sample(prompts, ids=ids, step=step, stage=stage, num_samples=num_samples, logprobs=logprobs)
        return score(stage, problems, prompts, samples, reward=reward, prompter=prompter, scale=config.scale_rewards)

    if config.num_drafts == 0:
        return Rollout(list(problems), None, None, run(bare, DRAFT, config.num_generations, logprobs))

    drafts = run(bare, DRAFT, config.num_drafts, False)
    if config.select == "none":
        return Rollout(list(problems), drafts, None, run(bare, REFINE, config.num_generations, logprobs))

    noise = np.stack([np.random.default_rng((seed, step, p.id)).random(config.num_drafts) for p in problems])
    chosen = select_draft(
        drafts.rewards, drafts.samples.lengths, noise, select=config.select, tie_break=config.tie_break
    )
    prompts = [
        prompter.refinement(problem.question, tokens_of(drafts.samples, p, int(chosen[p])), limit=refinement_limit)
        for p, problem in enumerate(problems)
    ]
    return Rollout(list(problems), drafts, chosen, run(prompts, REFINE, config.num_generations, logprobs))


def tokens_of(samples: Samples, problem: int, index: int) -> list[int]:
    """The tokens of one completion, its end token included."""
    return samples.tokens[problem, index, : samples.lengths[problem, index]].tolist()


def score(
    stage: int,
    problems: Sequence[Problem],
    prompts: list[list[int]],
    samples: Samples,
    *,
    reward: Reward,
    prompter: Prompter,
    scale: bool,
) -> Stage:
    """Decodes and rewards completions; only the completion is graded, never its prompt."""
    count, group = samples.lengths.shape
    texts = [[prompter.text(tokens_of(samples, p, g)) for g in range(group)] for p in range(count)]
    repeated = [problem for problem in problems for _ in range(group)]
    names = set.union(*(set(problem.columns) for problem in problems))
    columns = {name: [problem.columns.get(name) for problem in repeated] for name in sorted(names)}
    columns["ended"] = samples.ended.reshape(-1).tolist()
    scores = reward([p.question for p in repeated], [text for row in texts for text in row], columns)
    rewards = np.asarray(scores.total, np.float32).reshape(count, group)
    advantages = np.asarray(group_advantages(rewards, scale=scale))
    return Stage(stage, prompts, samples, texts, rewards, scores, advantages)
