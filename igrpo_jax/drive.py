"""Runs one little program for each problem, all at once: it says what is wanted next, and gets it back graded.

So one problem refines while another is still drafting. Programs know nothing of requests and processes; this file does.
"""

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.advantages import overlong_penalty
from igrpo_jax.edges.chat import asked
from igrpo_jax.prompts import Prompter
from igrpo_jax.protocols import Sample
from igrpo_jax.rewards import Scores
from igrpo_jax.types import Divide, Problem, Request, Samples, Usage, alone

Reward = Callable[[Sequence[str], Sequence[str], Mapping[str, Sequence[Any]]], Scores]
"""Scores n completions given their n questions and columns of n values."""


def with_overlong(reward: Reward, *, limit: int, buffer: int) -> Reward:
    """The same reward less what completions cost that come near the length limit, see `overlong_penalty`.

    What they cost is a reward of its own, "overlong"; a buffer of 0 changes nothing.
    """

    def shaped(questions: Sequence[str], texts: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> Scores:
        lengths = np.array([len(tokens) for tokens in columns["completion_ids"]])
        penalty = overlong_penalty(lengths, limit=limit, buffer=buffer)
        return reward(questions, texts, columns).plus("overlong", penalty)

    return shaped if buffer else reward


class Draft(NamedTuple):
    """A completion that goes into a later prompt.

    Attributes:
      stage: number of the stage that it comes from.
      index: its number in its group.
      tokens: token ids, the end token included.
      reward: what it was worth.
      right: whether it is right, see `Scores.right`.
      step: number of the step that it comes from, from 1 as in records, where that is an earlier one.
    """

    stage: int
    index: int
    tokens: list[int]
    reward: float
    right: bool
    step: int | None = None


class Group(NamedTuple):
    """One prompt's completions and what they were worth.

    Attributes:
      stage: stage number.
      prompt: token ids.
      draft: the earlier completion in the prompt, if there is one.
      samples: the completions' tokens, [G, T].
      scores: the reward functions' results, of G completions.
      copied: how many completions have the draft's text as it goes into prompts, spaces around it aside.
    """

    stage: int
    prompt: list[int]
    draft: Draft | None
    samples: Samples
    scores: Scores
    copied: int

    def completion(self, index: int) -> Draft:
        """One of the completions, to go into a later prompt."""
        tokens, reward = tokens_of(self.samples, index), float(self.scores.total[index])
        return Draft(self.stage, index, tokens, reward, bool(self.right[index]))

    @property
    def right(self) -> np.ndarray:
        """bool[G], which completions are right."""
        return self.scores.right()[1]


class Ask(NamedTuple):
    """Completions that a program wants of its problem.

    Attributes:
      stage: stage number, part of the random key.
      count: how many completions.
      draft: what stands in the prompt besides the question; None for the bare question.
    """

    stage: int
    count: int
    draft: Draft | None = None


Program = Generator[Ask, Group, None]
"""What one problem goes through: yields an `Ask` and is sent the `Group` that came of it, as often as it likes."""


def drive(
    programs: Sequence[Program],
    problems: Sequence[Problem],
    *,
    sample: Sample,
    reward: Reward,
    prompter: Prompter,
    refinement_limit: int,
    step: int,
    divide: Divide = alone,
    begin: int | None = None,
    keep: Callable[[Sequence[Group]], bool] = lambda groups: True,
) -> tuple[list[list[Group]], Usage]:
    """Runs one program for each problem, all at once: whatever one asks for is drawn while others are graded.

    With `begin`, only the first so many begin. When one has ended and `keep` says no to what it got, the next program
    in order begins, as long as there is one, in the room that is free now. So in the end the programs that have begun
    are the shortest row of the first ones among which `begin` are kept: which these are does not hang on time, for
    what a program gets does not.

    In a run of several processes each runs all programs, which is little work, and does a part of what is much: it
    renders its share of the prompts, and decodes and grades its share of the completions.

    Args:
      programs: P of them, not begun.
      problems: P of them.
      begin: how many programs begin unasked; None is all. The arguments before it are `rollout`'s.
      keep: whether what a program got is of use.

    Returns:
      What each program got, in order, nothing where one did not begin, and how sampling spent its time.
    """
    waiting = iter(range(len(programs) if begin is None else begin, len(programs)))
    latest: dict[int, Ask] = {}
    groups: list[list[Group]] = [[] for _ in problems]
    turn = threading.Lock()  # `follow` may run in several threads; only rewards are asked for side by side

    def render(asks: Sequence[tuple[int, Ask]]) -> list[list[int]]:
        with turn:
            return [
                prompter.refinement(problems[p].question, ask.draft.tokens, limit=refinement_limit)
                if ask.draft
                else prompter.question(problems[p].question)
                for p, ask in asks
            ]

    def advance(p: int, group: Group | None = None) -> list[tuple[int, Ask]]:
        """What a program asks for next, or the one that takes its place, if anything; without a group it begins."""
        try:
            return [(p, programs[p].send(group))]  # pyright: ignore[reportArgumentType]
        except StopIteration:
            other = None if keep(groups[p]) else next(waiting, None)
            return [] if other is None else advance(other)

    def requests(asks: list[tuple[int, Ask]]) -> list[Request]:
        latest.update(asks)
        # Where there is one prompt the others would only wait for the process that renders it.
        prompts = (divide if len(asks) > 1 else alone)("prompts", render, asks)
        pairs = zip(asks, prompts, strict=True)
        return [Request(p, problems[p].id, ask.stage, prompt, ask.count) for (p, ask), prompt in pairs]

    def follow(finished: list[tuple[Request, Samples]]) -> list[Request]:
        items = [(problems[request.index], latest[request.index].draft, samples) for request, samples in finished]
        graded = divide("grades", lambda some: grade(some, reward, prompter), items)
        further = []
        with turn:
            for (request, samples), (scores, copied) in zip(finished, graded, strict=True):
                p = request.index
                group = Group(request.stage, request.prompt, latest[p].draft, samples, scores, copied)
                groups[p].append(group)
                further += advance(p, group)
        return requests(further)

    usage = sample(
        requests([ask for p in range(len(programs))[:begin] for ask in advance(p)]), step=step, follow=follow
    )
    return groups, usage


def grade(
    items: Sequence[tuple[Problem, Draft | None, Samples]], reward: Reward, prompter: Prompter
) -> list[tuple[Scores, int]]:
    """What each prompt's completions are worth, and how many of them repeat the draft in their prompt.

    All are rewarded in one call; only the completion is graded, never its prompt. Rewards see texts: of a conversation
    what the user says last, of a completion all but padding and turn ends.
    """
    ids = [[tokens_of(s, g) for g in range(len(s.lengths))] for _, _, s in items]
    texts = [[prompter.text(tokens) for tokens in group] for group in ids]
    repeated = [problem for (problem, _, _), group in zip(items, texts, strict=True) for _ in group]
    names = set.union(*(set(problem.columns) for problem in repeated))
    columns = {name: [problem.columns.get(name) for problem in repeated] for name in sorted(names)}
    columns["ended"] = [bool(end) for _, _, samples in items for end in samples.ended]
    columns["completion_ids"] = [tokens for group in ids for tokens in group]
    questions = [asked(problem.question) for problem in repeated]
    scores = reward(questions, [text for group in texts for text in group], columns)
    said = lambda text: prompter.spoken(text).strip()
    drafts = [said(prompter.text(draft.tokens)) if draft else None for _, draft, _ in items]
    copied = [sum(said(text) == draft for text in group) for group, draft in zip(texts, drafts, strict=True)]
    ends = np.cumsum([len(group) for group in texts]).tolist()
    parts = [scores.part(end - len(group), end) for group, end in zip(texts, ends, strict=True)]
    return list(zip(parts, copied, strict=True))


def tokens_of(samples: Samples, *index: int) -> list[int]:
    """The tokens of one completion of a group, or of a stage's groups, its end token included."""
    return samples.tokens[index][: samples.lengths[index]].tolist()
