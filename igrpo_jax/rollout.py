"""Algorithm 1: draft, keep the best draft, refine it. Sampling and rewards are arguments; no model is needed."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from igrpo_jax.advantages import group_advantages, select_draft
from igrpo_jax.config import AlgorithmConfig
from igrpo_jax.drive import Ask, Draft, Group, Program, Reward, drive
from igrpo_jax.prompts import Prompter
from igrpo_jax.protocols import Sample
from igrpo_jax.replay import Past, remembered
from igrpo_jax.rewards import Scores
from igrpo_jax.types import DRAFT, REFINE, Divide, Problem, Samples, Usage, alone, in_round, stack


def igrpo(config: AlgorithmConfig, noise: np.random.Generator, past: Draft | None = None) -> Program:
    """Algorithm 1 of the paper for one problem; with `num_drafts = 0` it is GRPO, with `rounds > 1` it refines again.

    `past` is its best draft of earlier steps, if it has one and the config replays those. The last group it asks for is
    the one that is trained on.
    """
    if config.num_drafts == 0:
        yield Ask(DRAFT, config.num_generations)
        return
    drafts = yield Ask(DRAFT, config.num_drafts)
    if config.skip_solved and drafts.right.all():
        return
    refinements: list[Group] = []
    for number in range(config.rounds):
        best = pick(refinements or [drafts], config, noise, past)
        refinements.append((yield Ask(in_round(REFINE, number), config.num_generations, best)))


def pick(
    groups: Sequence[Group], config: AlgorithmConfig, noise: np.random.Generator, past: Draft | None = None
) -> Draft | None:
    """The completion of these groups that goes into the next prompt, by `select` and `tie_break`; None for "none".

    With the probability `replay` the past one goes there instead, if it is no worse.
    """
    if config.select == "none":
        return None
    places = [(group, index) for group in groups for index in range(len(group.samples.lengths))]
    rewards, lengths, right = (
        np.concatenate(values)[None]
        for values in zip(*((group.scores.total, group.samples.lengths, group.right) for group in groups), strict=True)
    )
    chosen = select_draft(
        rewards, lengths, right, noise.random(rewards.shape), select=config.select, tie_break=config.tie_break
    )
    group, index = places[int(chosen[0])]
    best = group.completion(index)
    return past if past and noise.random() < config.replay and past.reward >= best.reward else best


def trainable(groups: Sequence[Group], config: AlgorithmConfig) -> bool:
    """Whether what a problem got is trained on: it was refined, and under dynamic sampling its rewards have spread."""
    rewards = groups[-1].scores.total
    refined, flat = len(groups) == len(sizes(config)), (rewards == rewards[0]).all()
    return refined and not (config.dynamic_sampling and flat)


def sizes(config: AlgorithmConfig) -> list[tuple[int, int]]:
    """The number of each stage that `igrpo` goes through, and how many completions of a problem it has."""
    if config.num_drafts == 0:
        return [(DRAFT, config.num_generations)]
    rounds = [(in_round(REFINE, number), config.num_generations) for number in range(config.rounds)]
    return [(DRAFT, config.num_drafts), *rounds]


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
      problems: those that are trained on; P, but for `missing`.
      stages: in order; the last one is trained on.
      usage: how sampling spent its time.
      missing: how many problems are too few, when no more could be drawn in place of those not worth training on.
      sampled: the stages with all problems that went through them, those that are not trained on too; None where
        there are no such problems, because the config asks for all to be trained on.
      past: the best draft of each problem up to this step, for the steps to come; None without `replay`.
    """

    problems: list[Problem]
    stages: list[Stage]
    usage: Usage
    missing: int = 0
    sampled: list[Stage] | None = None
    past: Past | None = None

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
    count: int | None = None,
    past: Past | None = None,
) -> Rollout:
    """Runs Algorithm 1 for every problem of a step.

    Args:
      problems: P of them, and behind them those that may take the place of such as are not worth training on.
      sample: draws completions of prompts; the same policy serves all stages.
      reward: the same for all stages.
      prompter: renders questions, and questions with a draft.
      config: what is said of drafts, refinements and advantages is read.
      seed: of the run; with `step` and the problem's id it keys the breaking of ties.
      step: training step.
      refinement_limit: tokens that a prompt with a draft may have.
      divide: lets every process of a run do a part of tokenizing and grading.
      count: P; None is all problems.
      past: the best draft of each problem in earlier steps, read with `replay` only.

    Returns:
      See `Rollout`. Problems are those that are worth training on, the first P of them in the order given.
    """
    count, keep = len(problems) if count is None else count, partial(trainable, config=config)
    past = (past or {}) if config.replay else None
    programs = [
        igrpo(config, np.random.default_rng((seed, step, problem.id)), past.get(problem.id) if past else None)
        for problem in problems
    ]
    groups, usage = drive(
        programs, problems, sample=sample, reward=reward, prompter=prompter, refinement_limit=refinement_limit,
        step=step, divide=divide, begin=count, keep=keep,
    )  # fmt: skip
    begun = [p for p, some in enumerate(groups) if some]
    kept = [p for p in begun if keep(groups[p])]
    stages_with = lambda numbers: stages_of([groups[p] for p in numbers], config=config, like=groups[0][0])
    stages, sampled = stages_with(kept), None
    if config.skip_solved or config.dynamic_sampling:
        sampled = stages if kept == begun else stages_with(begun)
    if past is not None:
        past = remembered(past, [problems[p] for p in begun], [groups[p][0] for p in begun], step=step)
    return Rollout([problems[p] for p in kept], stages, usage, count - len(kept), sampled, past)


def stages_of(groups: Sequence[Sequence[Group]], *, config: AlgorithmConfig, like: Group) -> list[Stage]:
    """What these problems got, by stage, each counting in the stages that it went through; `like` is any group."""
    found = []
    for i, (number, count) in enumerate(sizes(config)):
        there = [some[i] for some in groups if len(some) > i]
        how = {"baseline": config.baseline, "scale": config.scale_rewards}
        found.append(stage_of(there, **how) if there else no_groups(number, count, like))
    return found


def no_groups(number: int, count: int, like: Group) -> Stage:
    """A stage through which no problem went, P = 0."""
    samples = Samples(*(np.zeros((0, count, *x.shape[1:]), x.dtype) for x in like.samples))
    nothing = np.zeros((0, count), np.float32)
    return Stage(number, [], [], samples, nothing, like.scores.part(0, 0), nothing, np.zeros(0, int))


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
