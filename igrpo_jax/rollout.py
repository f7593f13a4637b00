"""The two stages: draft, keep the best draft, refine it. Sampling and rewards are arguments; no model is needed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.advantages import group_advantages, select_draft
from igrpo_jax.config import AlgorithmConfig
from igrpo_jax.prompts import Prompter
from igrpo_jax.rewards import Scores
from igrpo_jax.types import DRAFT, REFINE, Divide, Problem, Request, Sample, Samples, Usage, alone, stack

Reward = Callable[[Sequence[str], Sequence[str], Mapping[str, Sequence[Any]]], Scores]
"""Scores n completions given their n questions and columns of n values."""


class Answer(NamedTuple):
    """What one process says to all about a prompt's completions, whose texts it alone has seen.

    Attributes:
      scores: the reward functions' results.
      copied: how many have the text of the draft in their prompt, spaces around it aside.
      chosen: the completion that is put into the next prompt, if there is one.
      prompt: tokens of the next prompt.
    """

    scores: Scores
    copied: int = 0
    chosen: int | None = None
    prompt: list[int] | None = None


class Group(NamedTuple):
    """One prompt's completions and what they were worth.

    Attributes:
      prompt: token ids.
      samples: the completions' tokens, [G, T].
      answer: what they are worth.
    """

    prompt: list[int]
    samples: Samples
    answer: Answer


Groups = dict[int, dict[int, Group]]
"""Groups by stage and by problem."""


class Stage(NamedTuple):
    """What one stage produced.

    Attributes:
      number: DRAFT, REFINE, or one of evaluation's; it fixes the static prompt length.
      prompts: P token lists.
      samples: the completions' tokens.
      rewards: float32[P, G], the weighted sum.
      scores: the reward functions' own results, flat [P * G].
      advantages: float32[P, G].
      copied: int[P], how many completions repeat the draft in their prompt.
    """

    number: int
    prompts: list[list[int]]
    samples: Samples
    rewards: np.ndarray
    scores: Scores
    advantages: np.ndarray
    copied: np.ndarray


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
    divide: Divide = alone,
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
      divide: lets every process of a run do a part of tokenizing and grading.

    Returns:
      See `Rollout`.
    """
    groups: Groups = {DRAFT: {}, REFINE: {}}

    def answer(request: Request, samples: Samples, texts: list[str], scores: Scores) -> Answer:
        problem = problems[request.index]
        if request.stage == DRAFT and config.num_drafts:
            if config.select == "none":
                return Answer(scores, prompt=request.prompt)
            best = choose(samples.lengths, scores.total, problem, config, seed=seed, step=step)
            draft = tokens_of(samples, best)
            prompt = prompter.refinement(problem.question, draft, limit=refinement_limit)
            return Answer(scores, chosen=best, prompt=prompt)
        drafts = groups[DRAFT].get(request.index)
        if drafts is None or drafts.answer.chosen is None:
            return Answer(scores)
        draft = prompter.text(tokens_of(drafts.samples, drafts.answer.chosen)).strip()
        return Answer(scores, copied=sum(text.strip() == draft for text in texts))

    sizes = (config.num_drafts or config.num_generations, config.num_generations)
    usage = answered(
        problems, groups, answer, sizes=sizes, sample=sample, reward=reward, prompter=prompter, step=step, divide=divide
    )

    def stage(number: int) -> Stage:
        return stage_of(number, [groups[number][p] for p in range(len(problems))], scale=config.scale_rewards)

    if not config.num_drafts:
        return Rollout(list(problems), None, None, stage(DRAFT), usage)
    chosen = [groups[DRAFT][p].answer.chosen for p in range(len(problems))]
    order = None if None in chosen else np.array(chosen)
    return Rollout(list(problems), stage(DRAFT), order, stage(REFINE), usage)


def answered(
    problems: Sequence[Problem],
    groups: Groups,
    answer: Callable[[Request, Samples, list[str], Scores], Answer],
    *,
    sizes: tuple[int, int],
    sample: Sample,
    reward: Reward,
    prompter: Prompter,
    step: int,
    divide: Divide,
) -> Usage:
    """Samples and grades completions of every question, and of the prompts that follow from them.

    Args:
      problems: P of them.
      groups: to be filled; its two keys are the stages' numbers.
      answer: what there is to say about a prompt's completions, of given texts and scores.
      sizes: completions of a prompt, by stage.
      sample: as for `rollout`, like all that follows.
    """
    first, second = groups

    def answers(finished: Sequence[tuple[Request, Samples]]) -> list[Answer]:
        graded = grade(finished, problems, reward, prompter)
        return [answer(*pair, *one) for pair, one in zip(finished, graded, strict=True)]

    def follow(finished: list[tuple[Request, Samples]]) -> list[Request]:
        requests = []
        for (request, samples), found in zip(finished, divide("answers", answers, finished), strict=True):
            p = request.index
            groups[request.stage][p] = Group(request.prompt, samples, found)
            if found.prompt is not None:
                requests.append(Request(p, problems[p].id, second, found.prompt, sizes[1]))
        return requests

    prompts = divide("prompts", lambda some: [prompter.question(problem.question) for problem in some], problems)
    pairs = enumerate(zip(problems, prompts, strict=True))
    requests = [Request(p, problem.id, first, prompt, sizes[0]) for p, (problem, prompt) in pairs]
    return sample(requests, step=step, follow=follow)


def choose(
    lengths: np.ndarray, rewards: np.ndarray, problem: Problem, config: AlgorithmConfig, *, seed: int, step: int
) -> int:
    """The index of the draft that conditions stage two."""
    noise = np.random.default_rng((seed, step, problem.id)).random((1, config.num_drafts))
    best = select_draft(rewards[None], lengths[None], noise, select=config.select, tie_break=config.tie_break)
    return int(best[0])


def tokens_of(samples: Samples, *index: int) -> list[int]:
    """The tokens of one completion of a group, or of a stage's groups, its end token included."""
    return samples.tokens[index][: samples.lengths[index]].tolist()


def grade(
    finished: Sequence[tuple[Request, Samples]], problems: Sequence[Problem], reward: Reward, prompter: Prompter
) -> list[tuple[list[str], Scores]]:
    """The texts of each prompt's completions, special tokens left out, and what they are worth.

    All are rewarded in one call; only the completion is graded, never its prompt.
    """
    texts = [[prompter.text(tokens_of(samples, g)) for g in range(len(samples.lengths))] for _, samples in finished]
    repeated = [problems[r.index] for (r, _), group in zip(finished, texts, strict=True) for _ in group]
    names = set.union(*(set(problem.columns) for problem in repeated))
    columns = {name: [problem.columns.get(name) for problem in repeated] for name in sorted(names)}
    columns["ended"] = [bool(end) for _, samples in finished for end in samples.ended]
    scores = reward([problem.question for problem in repeated], [text for group in texts for text in group], columns)
    ends = np.cumsum([len(group) for group in texts]).tolist()
    return [(group, scores.part(end - len(group), end)) for group, end in zip(texts, ends, strict=True)]


def stage_of(number: int, groups: Sequence[Group], *, scale: bool) -> Stage:
    """The groups of all problems, in order, with their advantages."""
    rewards = np.stack([group.answer.scores.total for group in groups]).astype(np.float32)
    return Stage(
        number=number,
        prompts=[group.prompt for group in groups],
        samples=stack([group.samples for group in groups]),
        rewards=rewards,
        scores=Scores.join([group.answer.scores for group in groups]),
        advantages=np.asarray(group_advantages(rewards, scale=scale)),
        copied=np.array([group.answer.copied for group in groups]),
    )
