"""Evaluates a policy on one set: bare, and with `refine` also refined, at equally many sampled tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from igrpo_jax.config import Config, EvalConfig
from igrpo_jax.drive import Group, Program, Reward, drive
from igrpo_jax.evaluate.matching import Draw, matched, total
from igrpo_jax.evaluate.programs import GOLD, bare, goodness_of, refined
from igrpo_jax.evaluate.scores import answers_of, scores
from igrpo_jax.prompts import Prompter
from igrpo_jax.protocols import Sample
from igrpo_jax.records.samples import sample_record
from igrpo_jax.rollout import stage_of
from igrpo_jax.types import Divide, Problem


class Evaluation(NamedTuple):
    """One set as it was answered in one mode.

    Attributes:
      mode: "bare" or "refined".
      problems: P.
      groups: of each problem, all that was sampled for this mode, in order. Bare answers are all of it; refined ones
        are the last group, for which the groups before it were needed.
    """

    mode: str
    problems: Sequence[Problem]
    groups: Sequence[Sequence[Group]]

    @property
    def sampled_tokens(self) -> int:
        """Tokens that were sampled for this mode, drafts included."""
        return total(self.groups)

    def records(self, text: Callable[[list[int]], str]) -> Iterator[dict[str, Any]]:
        """All that was sampled, a `sample_record` a problem, with `mode`."""
        for problem, groups in zip(self.problems, self.groups, strict=True):
            stages = [stage_of([group], baseline="group", scale="none") for group in groups]
            yield {"mode": self.mode} | sample_record(problem, 0, stages, text)


def evaluate(
    problems: Sequence[Problem],
    *,
    draw: Draw,
    settings: EvalConfig,
    seed: int = 0,
) -> list[Evaluation]:
    """Answers of a policy to some problems, graded.

    Args:
      problems: the whole set.
      draw: samples and grades, see `drawing`.
      settings: num_samples, refine, num_drafts, select and rounds are read.
      seed: of the choice among equally good drafts.

    Returns:
      The bare answers: `num_samples` of each problem, or, with `refine`, as many as the tokens of the refined ones
      allow, the drafts being the first of them. With `refine` the refined ones, too.
    """
    if not settings.refine:
        return [Evaluation("bare", problems, draw([bare(settings.num_samples) for _ in problems], problems))]
    second = refine(problems, draw=draw, settings=settings, seed=seed)
    first = matched(problems, [groups[:1] for groups in second.groups], second.sampled_tokens, draw)
    return [Evaluation("bare", problems, first), second]


def refine(
    problems: Sequence[Problem],
    *,
    draw: Draw,
    settings: EvalConfig,
    seed: int = 0,
) -> Evaluation:
    """The refined answers alone; arguments as of `evaluate`."""

    def program(problem: Problem) -> Program:
        noise = np.random.default_rng((seed, problem.id))
        return refined(settings.num_drafts, settings.num_samples, settings.rounds, goodness_of(settings.select), noise)

    return Evaluation("refined", problems, draw([program(problem) for problem in problems], problems))


def drawing(*, sample: Sample, reward: Reward, prompter: Prompter, refinement_limit: int, divide: Divide) -> Draw:
    """Runs programs of problems, whose randomness is that of step 0 whenever they are run.

    Args:
      sample: draws completions at the evaluation's settings.
      reward: grades them; `Scores.right` decides what is right.
      prompter: renders prompts.
      refinement_limit: tokens that a prompt with a draft may have.
      divide: as for `rollout`.
    """

    def draw(programs: Sequence[Program], problems: Sequence[Problem]) -> list[list[Group]]:
        return drive(
            programs, problems, sample=sample, reward=reward, prompter=prompter, refinement_limit=refinement_limit,
            step=0, divide=divide,
        )[0]  # fmt: skip

    return draw


def evaluation_line(name: str, evaluation: Evaluation, config: Config) -> dict[str, Any]:
    """What eval.jsonl says of an evaluation of the set `name`, but for the step; see docs/evaluation.md."""
    records = list(evaluation.records(lambda tokens: ""))
    answers = [answers_of(record, evaluation.mode) for record in records]
    return {
        "set": name,
        "mode": evaluation.mode,
        **conditions(evaluation.mode, config),
        "problems": len(answers),
        "n": min(map(len, answers)),
        "sampled_tokens": evaluation.sampled_tokens,
    } | scored(records, answers)


def conditions(mode: str, config: Config) -> dict[str, Any]:
    """What a line of eval.jsonl says of the settings under which answers are made in a mode and counted.

    `matched` names the refined answers to whose tokens the evaluation is held; it is None where there are none.
    """
    settings, made = config.eval, mode == "refined"
    refined = {"select": settings.select, "num_drafts": settings.num_drafts, "rounds": settings.rounds}
    return {
        **(refined if made else {"select": None, "num_drafts": 0, "rounds": 0}),
        "gold": made and settings.select in GOLD,
        "num_samples": settings.num_samples,
        "max_problems": settings.problems,
        "matched": refined | {"prompt": config.prompt.refine} if settings.refine else None,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_completion_length": settings.max_completion_length or config.sampling.max_completion_length,
        "system": config.prompt.system,
        "prompt": config.prompt.refine if made else config.prompt.question,
        "reward": list(config.reward.functions),
        "model": config.model.source,
        "seed": config.seed,
    }


def scored(records: Sequence[dict[str, Any]], answers: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Scores of these answers, in all and by problem, as eval.jsonl has them."""
    right = [sum(bool(one["right"]) for one in some) for some in answers]
    rows = zip(records, right, answers, strict=True)
    return {"scores": scores(answers), "by_problem": [[record["problem"], r, len(some)] for record, r, some in rows]}


def metrics_of(line: dict[str, Any]) -> dict[str, float]:
    """A line of eval.jsonl as metrics: `eval/<set>/...` of bare answers, `eval/<set>/refined/...` of refined ones."""
    place = f"eval/{line['set']}/" + ("refined/" if line["mode"] == "refined" else "")
    values = line["scores"] | {"sampled_tokens": line["sampled_tokens"]}
    return {f"{place}{name}": float(value) for name, value in values.items()}
