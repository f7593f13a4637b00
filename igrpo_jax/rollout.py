"""The two stages: draft, keep the best draft, refine it. Sampling and rewards are arguments; no model is needed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.advantages import group_advantages, select_draft
from igrpo_jax.config import AlgorithmConfig
from igrpo_jax.prompts import Prompter
from igrpo_jax.rewards import Scores
from igrpo_jax.sampling import stack
from igrpo_jax.types import Problem, Request, Sample, Samples, Usage

DRAFT, REFINE = 1, 2
"""Stage numbers; part of the random key."""

Reward = Callable[[Sequence[str], Sequence[str], Mapping[str, Sequence[Any]]], Scores]
"""Scores n completions given their n questions and columns of n values."""


class Group(NamedTuple):
    """One prompt's completions and what they were worth.

    Attributes:
      prompt: token ids.
      samples: the completions' tokens, [G, T].
      texts: G texts, special tokens left out.
      scores: the reward functions' results.
    """

    prompt: list[int]
    samples: Samples
    texts: list[str]
    scores: Scores


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
      usage: how sampling spent its time.
    """

    problems: list[Problem]
    drafts: Stage | None
    chosen: np.ndarray | None
    refinements: Stage
    usage: Usage


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
) -> Rollout:
    """Samples and scores drafts, puts one of them into the prompt, samples and scores refinements (Algorithm 1).

    A problem goes on as soon as its own drafts are scored; the sampler decides what is drawn when.

    Args:
      problems: P of them.
      sample: draws completions of prompts; the same policy serves both stages.
      reward: the same for both stages.
      prompter: renders both prompts.
      config: num_drafts, num_generations, select, tie_break and scale_rewards are read.
      seed: of the run; with `step` and the problem's id it keys the breaking of ties.
      step: training step.
      refinement_limit: tokens that a stage-two prompt may have.

    Returns:
      See `Rollout`.
    """
    groups: dict[int, dict[int, Group]] = {DRAFT: {}, REFINE: {}}
    chosen: dict[int, int] = {}

    def bare(p: int, stage: int, size: int) -> Request:
        return Request(p, problems[p].id, stage, prompter.question(problems[p].question), size)

    def refine(p: int) -> Request:
        if config.select == "none":
            return bare(p, REFINE, config.num_generations)
        chosen[p] = choose(groups[DRAFT][p], problems[p], config, seed=seed, step=step)
        draft = tokens_of(groups[DRAFT][p].samples, chosen[p])
        prompt = prompter.refinement(problems[p].question, draft, limit=refinement_limit)
        return Request(p, problems[p].id, REFINE, prompt, config.num_generations)

    def follow(finished: list[tuple[Request, Samples]]) -> list[Request]:
        for (request, _), group in zip(finished, grade(finished, problems, reward, prompter), strict=True):
            groups[request.stage][request.index] = group
        drafted = [request.index for request, _ in finished if request.stage == DRAFT and config.num_drafts]
        return [refine(p) for p in drafted]

    first = config.num_drafts or config.num_generations
    usage = sample([bare(p, DRAFT, first) for p in range(len(problems))], step=step, follow=follow)

    def stage(number: int) -> Stage:
        return stage_of(number, [groups[number][p] for p in range(len(problems))], scale=config.scale_rewards)

    if not config.num_drafts:
        return Rollout(list(problems), None, None, stage(DRAFT), usage)
    order = np.array([chosen[p] for p in range(len(problems))]) if chosen else None
    return Rollout(list(problems), stage(DRAFT), order, stage(REFINE), usage)


def choose(drafts: Group, problem: Problem, config: AlgorithmConfig, *, seed: int, step: int) -> int:
    """The index of the draft that conditions stage two."""
    noise = np.random.default_rng((seed, step, problem.id)).random((1, config.num_drafts))
    rewards, lengths = drafts.scores.total[None], drafts.samples.lengths[None]
    return int(select_draft(rewards, lengths, noise, select=config.select, tie_break=config.tie_break)[0])


def tokens_of(samples: Samples, index: int) -> list[int]:
    """The tokens of one completion of a group, its end token included."""
    return samples.tokens[index, : samples.lengths[index]].tolist()


def grade(
    finished: Sequence[tuple[Request, Samples]], problems: Sequence[Problem], reward: Reward, prompter: Prompter
) -> list[Group]:
    """Decodes and rewards completions, all in one call; only the completion is graded, never its prompt."""
    texts = [[prompter.text(tokens_of(samples, g)) for g in range(len(samples.lengths))] for _, samples in finished]
    repeated = [problems[r.index] for (r, _), group in zip(finished, texts, strict=True) for _ in group]
    names = set.union(*(set(problem.columns) for problem in repeated))
    columns = {name: [problem.columns.get(name) for problem in repeated] for name in sorted(names)}
    columns["ended"] = [bool(end) for _, samples in finished for end in samples.ended]
    scores = reward([problem.question for problem in repeated], [text for group in texts for text in group], columns)
    ends = np.cumsum([len(group) for group in texts]).tolist()
    return [
        Group(request.prompt, samples, group, scores.part(end - len(group), end))
        for (request, samples), group, end in zip(finished, texts, ends, strict=True)
    ]


def stage_of(number: int, groups: Sequence[Group], *, scale: bool) -> Stage:
    """The groups of all problems, in order, with their advantages."""
    rewards = np.stack([group.scores.total for group in groups]).astype(np.float32)
    return Stage(
        number=number,
        prompts=[group.prompt for group in groups],
        samples=stack([group.samples for group in groups]),
        texts=[group.texts for group in groups],
        rewards=rewards,
        scores=Scores.join([group.scores for group in groups]),
        advantages=np.asarray(group_advantages(rewards, scale=scale)),
    )
