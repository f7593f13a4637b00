"""The built-in rewards: `accuracy`, `gym`, `format` and `ended`, all with TRL's signature."""

from collections.abc import Callable, Sequence
from typing import Any

from igrpo_jax.rewards import gym as gym_scorers
from igrpo_jax.rewards.compare import compare_symbolic, compare_text, warm_up
from igrpo_jax.rewards.extract import extract_answer
from igrpo_jax.rewards.verdict import Verdict
from igrpo_jax.rewards.workers.pool import GraderPool

Reward = Callable[..., list[Any]]
"""`fn(prompts, completions, **columns) -> list[float | None]`: a number a completion, None where it does not apply."""


def accuracy(pool: GraderPool) -> Reward:
    """Makes the reward 1.0 for completions whose answer equals the column `answer`.

    Strings and numbers are compared here; what needs symbolic comparison goes to the pool, each distinct pair once.
    A row whose gold answer is None gets None.
    """
    pool.prepare(warm_up)

    def accuracy(
        prompts: Sequence[Any], completions: Sequence[str], answer: Sequence[Any], **columns: Any
    ) -> list[Any]:
        answers = [extract_answer(completion) for completion in completions]
        golds = [_gold(value) for value in answer]
        verdicts = [_grade_text(ours, gold) for ours, gold in zip(answers, golds, strict=True)]
        pairs = list(dict.fromkeys(verdict for verdict in verdicts if isinstance(verdict, tuple)))
        graded = dict(zip(pairs, pool.map(compare_symbolic, pairs), strict=True)) if pairs else {}
        # Verdicts of items that failed do not know what was parsed.
        return [graded[item].reading(item[0]) if isinstance(item, tuple) else item for item in verdicts]

    return accuracy


def gym(pool: GraderPool) -> Reward:
    """Makes the reward that is reasoning-gym's own score of the answer, from 0 to 1.

    It needs the columns `gym_task` (the task's name) and `gym_entry` (the entry, a dictionary or JSON); a row whose
    task is None gets None. Tasks whose scorer would evaluate the answer are refused.
    """
    pool.prepare(gym_scorers.warm_up)

    def gym(
        prompts: Sequence[Any],
        completions: Sequence[str],
        gym_task: Sequence[str | None],
        gym_entry: Sequence[Any],
        **columns: Any,
    ) -> list[Any]:
        for task in sorted({task for task in gym_task if task is not None}):
            gym_scorers.check_task(task)
        answers = [extract_answer(completion) for completion in completions]
        rows = list(zip(gym_task, gym_entry, answers, strict=True))
        items = [row for row in rows if row[0] is not None and row[2] is not None]
        graded = iter(pool.map(gym_scorers.score_entry, items) if items else ())
        return [
            None if task is None else Verdict(0.0, "no_answer") if found is None else next(graded).reading(found)
            for task, _, found in rows
        ]

    return gym


def format_reward(prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:
    """1.0 for completions that are one `<think>...</think>` and then one `<answer>...</answer>`, else 0.0.

    A completion may begin inside the thought, where the prompt has opened it.
    """
    return [float(_well_formed(completion.strip())) for completion in completions]


def ended_reward(
    prompts: Sequence[Any], completions: Sequence[str], ended: Sequence[bool], **columns: Any
) -> list[float]:
    """1.0 for completions that stopped by themselves, 0.0 for those that the length limit cut."""
    return [float(bool(stopped)) for stopped in ended]


def _grade_text(answer: str | None, gold: str | None) -> Verdict | tuple[str, str] | None:
    """The verdict where text comparison has one, else the pair to compare symbolically."""
    if gold is None:
        return None
    if answer is None:
        return Verdict(0.0, "no_answer")
    verdict = compare_text(answer, gold)
    return (answer, gold) if verdict is None else verdict


def _gold(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(
        f"the column `answer` holds a {type(value).__name__}, {str(value)[:40]!r}; set data.answer_column to "
        "one that holds text or numbers"
    )


def _well_formed(text: str) -> bool:
    tags = [text.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")]
    if tags[0] > 1 or tags[1:] != [1, 1, 1] or (tags[0] == 1 and not text.startswith("<think>")):
        return False
    rest = text.partition("</think>")[2].strip()
    return rest.startswith("<answer>") and rest.endswith("</answer>")
