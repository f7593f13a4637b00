"""Algorithm 1: draft, keep the best draft, refine it. Sampling and rewards are arguments; no model is needed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from igrpo_jax.advantages import group_advantages, select_draft
from igrpo_jax.config import AlgorithmConfig
from igrpo_jax.drive import Ask, Draft, Group, Program, Reward, drive
from igrpo_jax.prompts import Prompter
from igrpo_jax.protocols import Sample
from igrpo_jax.rewards import Scores
from igrpo_jax.types import DRAFT, REFINE, Divide, Problem, Samples, Usage, alone, in_round, stack


def igrpo(config: AlgorithmConfig, noise: np.random.Generator) -> Program:
    """Algorithm 1 of the paper for one problem; with `num_drafts = 0` it is GRPO, with `rounds > 1` it refines again.

    The last group it asks for is the one that is trained on.
    """
    if config.num_drafts == 0:
        yield Ask(DRAFT, config.num_generations)
        return
    drafts = yield Ask(DRAFT, config.num_drafts)
    refinements: list[Group] = []
    for number in range(config.rounds):
        best = pick(refinements or [drafts], config, noise)
        refinements.append((yield Ask(in_round(REFINE, number), config.num_generations, best)))


def pick(groups: Sequence[Group], config: AlgorithmConfig, noise: np.random.Generator) -> Draft | None:
    """The completion of these groups that goes into the next prompt, by `select` and `tie_break`; None for "none"."""
    if config.select == "none":
        return None
    places = [(group, index) for group in groups for index in range(len(group.samples.lengths))]
    rewards = np.concatenate([group.scores.total for group in groups])
    lengths = np.concatenate([group.samples.lengths for group in groups])
    chosen = select_draft(
        rewards[None], lengths[None], noise.random((1, len(places))), select=config.select, tie_break=config.tie_break
    )
    group, index = places[int(chosen[0])]
    return group.completion(index)


class Stage(NamedTuple):
    """What all problems' programs got in one stage.

    Attributes:
      number: stage number; it fixes the static prompt length.
      prompts: P token lists.
      drafts: the earlier completion in each of the P prompts, None where there is none.
      samples: the completions' tokens, [P, G, T].
      rewards: float32[P, G], the weighted sum.
      scores: the reward functions' own results, flat [P * G].
      advantages: float32[P, G].
      copied: int[P], how many completions repeat the draft in their prompt.
    """

    number: int
    prompts: list[list[int]]
    drafts: list[Draft | None]
    samples: Samples
    rewards: np.ndarray
    scores: Scores
    advantages: np.ndarray
    copied: np.ndarray


class Rollout(NamedTuple):
    """One step's experience.

    Attributes:
      problems: P.
      stages: in order; the last one is trained on.
      usage: how sampling spent its time.
    """

    problems: list[Problem]
    stages: list[Stage]
    usage: Usage

    @property
    def drafts(self) -> Stage | None:
        """Stage one; None under GRPO, which has one stage only."""
        return self.stages[0] if len(self.stages) > 1 else None

    @property
    def refinements(self) -> Stage:
        """What is trained on: the last round of refinements, or GRPO's completions."""
        return self.stages[-1]


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
    divide: Divide = alone,
) -> Rollout:
    """Runs Algorithm 1 for every problem of a step.

    Args:
      problems: P of them.
      sample: draws completions of prompts; the same policy serves all stages.
      reward: the same for all stages.
      prompter: renders questions, and questions with a draft.
      config: num_drafts, num_generations, rounds, select, tie_break, baseline and scale_rewards are read.
      seed: of the run; with `step` and the problem's id it keys the breaking of ties.
      step: training step.
      refinement_limit: tokens that a prompt with a draft may have.
      divide: lets every process of a run do a part of tokenizing and grading.

    Returns:
      See `Rollout`.
    """
    programs = [igrpo(config, np.random.default_rng((seed, step, problem.id))) for problem in problems]
    groups, usage = drive(
        programs, problems, sample=sample, reward=reward, prompter=prompter, refinement_limit=refinement_limit,
        step=step, divide=divide,
    )  # fmt: skip
    how = {"baseline": config.baseline, "scale": config.scale_rewards}
    stages = [stage_of(some, **how) for some in zip(*groups, strict=True)]
    return Rollout(list(problems), stages, usage)


def stage_of(groups: Sequence[Group], *, baseline: str, scale: str) -> Stage:
    """What all problems got in one stage, in order, with advantages."""
    rewards = np.stack([group.scores.total for group in groups]).astype(np.float32)
    return Stage(
        number=groups[0].stage,
        prompts=[group.prompt for group in groups],
        drafts=[group.draft for group in groups],
        samples=stack([group.samples for group in groups]),
        rewards=rewards,
        scores=Scores.join([group.scores for group in groups]),
        advantages=np.asarray(group_advantages(rewards, baseline=baseline, scale=scale)),
        copied=np.array([group.copied for group in groups]),
    )
