"""reasoning-gym's scorers run in graders, and none of those that run sees `eval`."""

import builtins
import json

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from igrpo_jax.rewards import GraderPool
from igrpo_jax.rewards.builtin import gym
from igrpo_jax.rewards.gym import EVALUATING_TASKS, check_task, score_entry
from tests.rewards import jobs

SCORED = sorted(set(DATASETS) - EVALUATING_TASKS - {"composite"})
HOSTILE = ["[['zzq']]", "zzq", "zzq + 1", "1\nzzq", "(zzq)", "A=zzq", '{"1": "zzq"}', "__import__('zzq')"]


def entry(task):
    return reasoning_gym.create_dataset(task, size=1, seed=1)[0]


def test_scores_in_graders(pool):
    one, two = entry("chain_sum"), entry("word_ladder")
    verdicts = gym(pool)(
        prompts=[""] * 5,
        completions=[rf"\boxed{{{one['answer']}}}", "-1", f"<answer>{two['answer']}</answer>", "none", "7"],
        gym_task=["chain_sum", "chain_sum", "word_ladder", "chain_sum", None],
        gym_entry=[one, json.dumps(one), json.dumps(two), one, None],
    )
    assert verdicts == [1.0, 0.0, 1.0, 0.0, None]
    assert [v if v is None else v.reason for v in verdicts] == ["ok", "unequal", "ok", "no_answer", None]
    assert verdicts[0].parsed == one["answer"]


@pytest.mark.parametrize("task", ["countdown", "puzzle24", "n_queens", "composite"])
def test_evaluating_tasks_are_refused(task, pool):
    with pytest.raises(ValueError, match=task):
        gym(pool)(prompts=[""], completions=["1"], gym_task=[task], gym_entry=["{}"])


def test_graders_of_gym_evaluate_nothing():
    with GraderPool(1, 60.0, 512) as graders:
        assert graders.map(jobs.evaluates, [("1+1",)]) == [2]
        gym(graders)
        (verdict,) = graders.map(jobs.evaluates, [("1+1",)])
    assert (verdict.reason, verdict.message) == ("error", "RuntimeError: a grader process does not evaluate text")


@pytest.mark.filterwarnings("ignore")
def test_no_other_scorer_evaluates_the_answer(monkeypatch):
    """And those on the list do, so the list is neither too short nor too long."""
    entries = {task: entry(task) for task in [*SCORED, *EVALUATING_TASKS]}
    seen, current = set(), ""
    for name in ("eval", "exec"):
        real = getattr(builtins, name)

        def watched(source, *rest, real=real):
            if isinstance(source, str) and "zzq" in source:
                seen.add(current)
                return None
            return real(source, *rest)

        monkeypatch.setattr(builtins, name, watched)
    for current, item in entries.items():
        dataset = reasoning_gym.create_dataset(current, size=1, seed=1)
        for answer in HOSTILE:
            try:
                dataset.score_answer(answer, item)
            except Exception:
                continue
    assert seen == EVALUATING_TASKS


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["arc_agi", "rearc", "arc_1d", "rotate_matrix", "gsm_symbolic"])
def test_right_answers_survive_json(task):
    item = entry(task)
    assert score_entry(task, json.dumps(item), item["answer"]) == 1.0


def test_accepted_tasks_pass():
    for task in SCORED:
        check_task(task)
