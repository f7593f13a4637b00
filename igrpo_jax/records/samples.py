"""What was sampled, as records: a problem, all completions of all its stages, and what they were worth.

samples.jsonl of a run and the generations of an evaluation have this one form, and so one reader.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from igrpo_jax.drive import tokens_of
from igrpo_jax.edges.chat import asked
from igrpo_jax.rollout import Stage
from igrpo_jax.types import Problem


def sample_record(
    problem: Problem, index: int, stages: Sequence[Stage], text: Callable[[list[int]], str]
) -> dict[str, Any]:
    """One problem's samples, ready for JSON.

    Args:
      problem: whose they are.
      index: its place in the stages.
      stages: in order.
      text: a completion's tokens as text.

    Returns:
      `problem` (its id), `question`, `gold` (None where it has none), and `stages`: each with its number `stage`,
      `draft` (None, or the number of the stage and the index in it of the completion that stood in the prompt, or of
      one that comes from an earlier step its `text`, `reward` and `step`) and
      `completions`, each with `text`, `tokens` (how many), `ended`, `reward`, `rewards` (by function, None where one
      does not apply), `right`, `parsed`, `reason` and `advantage`.
    """
    return {
        "problem": problem.id,
        "question": asked(problem.question),
        "gold": problem.columns.get("answer"),
        "stages": [_stage(index, stage, text) for stage in stages],
    }


def _stage(p: int, stage: Stage, text: Callable[[list[int]], str]) -> dict[str, Any]:
    draft, count = stage.drafts[p], stage.rewards.shape[1]
    scores = stage.scores.part(p * count, (p + 1) * count)
    right = scores.right()[1]
    completions = [
        {
            "text": text(tokens_of(stage.samples, p, g)),
            "tokens": int(stage.samples.lengths[p, g]),
            "ended": bool(stage.samples.ended[p, g]),
            "reward": float(stage.rewards[p, g]),
            "rewards": {name: float(v[g]) if v[g] == v[g] else None for name, v in scores.each.items()},
            "right": bool(right[g]),
            "parsed": scores.parsed[g],
            "reason": scores.reasons[g],
            "advantage": float(stage.advantages[p, g]),
        }
        for g in range(count)
    ]
    place: Any = [draft.stage, draft.index] if draft else None
    if draft and draft.step is not None:
        place = {"text": text(draft.tokens), "reward": draft.reward, "step": draft.step}
    return {"stage": stage.number, "draft": place, "completions": completions}


def shown(record: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen draft and the first trained completion of a record, for a table of samples."""
    stages = {stage["stage"]: stage for stage in record["stages"]}
    last = record["stages"][-1]
    draft = last["draft"]
    if isinstance(draft, list):
        draft = stages[draft[0]]["completions"][draft[1]]
    return {
        "question": record["question"],
        "gold": record["gold"],
        "draft": draft,
        "refinement": last["completions"][0],
    }
