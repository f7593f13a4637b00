"""Rewards of the user's own run in a process that has a deadline and a memory limit, and their failures name a row."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from igrpo_jax.config import RewardConfig
from igrpo_jax.rewards import GraderPool, Rewards, load_rewards
from igrpo_jax.rewards.workers.pool import Closed

MINE = "tests.hostile.rewards_of_mine"


def load(*names, **changes):
    settings = {"call_deadline": 20.0, "memory_mb": 512} | changes
    return load_rewards(RewardConfig(functions=tuple(f"{MINE}:{name}" for name in names), **settings))


def score(rewards: Rewards, texts=("good", "bad", "good"), **columns):
    return rewards.score(["q"] * len(texts), list(texts), {name: list(values) for name, values in columns.items()})


def test_one_call_in_the_main_thread_of_another_process_without_jax():
    with load("process", "main_thread", "without_jax") as rewards:
        scores = score(rewards)
        assert len(set(scores.each["process"])) == 1 and score(rewards).each["process"][0] == scores.each["process"][0]
        assert scores.each["main_thread"].tolist() == [1, 1, 1] and scores.each["without_jax"].tolist() == [0, 0, 0]


def test_alarms_work_whichever_thread_asks():
    with load("with_alarms") as rewards, ThreadPoolExecutor(1) as thread:
        scores = thread.submit(score, rewards, ("the answer is 5", "6"), answer=["5", "5"]).result()
    assert scores.total.tolist() == [1.0, 0.0]


def test_the_whole_batch_and_any_columns():
    with load("sees_the_batch", "judge") as rewards:
        assert rewards.needed == {"answer"}
        ids = [[1, 2], np.arange(3), ()]
        scores = score(rewards, ("a", "bad", "cc"), answer=[1, None, {"x": [2]}], completion_ids=ids)
        assert scores.each["sees_the_batch"].tolist() == [2, 4, 0]
        np.testing.assert_array_equal(scores.each["judge"], np.array([0.5, np.nan, 0.5], np.float32))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("never_returns", r"took longer than reward.call_deadline, 1 s; raise that.* --reward.errors zero such"),
        (
            "raises_at_bad",
            r"raised KeyError: 'bad'; it must return one number .*\(completion 1 alone",
        ),
        ("exits_at_bad", r"ended badly: the grader process died \(exit status 3\); .*\(completion 1 alone does it\)"),
        ("system_exit", r"raised SystemExit: enough; .*\(completion 0 alone does it\)"),
        ("kills_itself", r"ended badly: the grader process died \(SIGKILL\)"),
        ("hungry", r"needed more memory than reward.memory_mb; raise that"),
        ("not_finite_at_bad", r"returned inf for completion 1; it must return a list of 3 finite numbers"),
        ("too_large_at_bad", r"returned 1e\+39 for completion 1; .* within float32"),
        ("huge_integer_at_bad", r"returned a number of int beyond all floats for completion 1"),
        ("no_number_at_bad", r"returned 'much' for completion 1"),
        ("too_few", r"returned 1 values for 3 completions"),
        ("generator", r"returned generator '<generator object"),
    ],
)
def test_a_failure_stops_with_the_row_named(name, message):
    with load(name, call_deadline=1.0) as rewards, pytest.raises(ValueError, match=f"reward '{name}' {message}"):
        score(rewards)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("raises_at_bad", [1, 0, 1], "error"),
        ("exits_at_bad", [1, 0, 1], "error"),
        ("not_finite_at_bad", [1, 0, 1], "error"),
        ("too_large_at_bad", [1, 0, 1], "error"),
        ("huge_integer_at_bad", [1, 0, 1], "error"),
        ("no_number_at_bad", [1, 0, 1], "error"),
        ("hungry", [0, 0, 0], "memory"),
        ("asleep_at_bad", [0, 0, 0], "timeout"),
    ],
)
def test_or_costs_these_rows_alone(name, values, reason):
    with load(name, call_deadline=2.0, errors="zero") as rewards:
        scores = score(rewards)
        assert scores.total.tolist() == values and scores.reasons[1] == reason
        assert [*scores.errors + scores.timeouts] == [1 - value for value in values]
        assert score(rewards, ("good",)).total.tolist() == [0.0 if name == "hungry" else 1.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_few", "returned 1 values for 3 completions"),
        ("generator", "returned generator"),
        ("too_few_of_some", "returned 1 values for 2 completions"),
    ],
)
def test_what_is_no_list_of_n_stops_in_any_case(name, message):
    with load(name, errors="zero") as rewards, pytest.raises(ValueError, match=message):
        score(rewards)


def test_a_sum_beyond_float32_is_refused():
    rewards = load_rewards(RewardConfig(functions=(f"{MINE}:large", "ended"), weights=(2.0, 1.0)))
    with (
        rewards,
        pytest.raises(ValueError, match=r"completion 0 add up to 6e\+38, beyond float32 \(large 3e\+38, ended"),
    ):
        score(rewards, ("a",), ended=[True])


def test_what_cannot_be_pickled_is_named():
    with (
        load("process") as rewards,
        pytest.raises(ValueError, match=r"process': what call is to grade cannot be pickled"),
    ):
        score(rewards, ("a",), extra=[threading.Lock()])


def test_what_it_prints_is_shown_apart_from_the_output(capfd):
    with load("prints") as rewards:
        score(rewards)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "said by a reward\n")


def test_a_reward_that_blocks_ends_when_the_rewards_are_closed():
    rewards, seen = load("never_returns", call_deadline=600.0), []

    def grade():
        try:
            score(rewards)
        except Closed as error:
            seen.append(error)

    thread = threading.Thread(target=grade)
    thread.start()
    time.sleep(0.5)
    rewards.close()
    thread.join(5)
    assert seen and not thread.is_alive()


def test_modules_that_end_their_process_are_told(tmp_path):
    (tmp_path / "ends.py").write_text("import os\nos._exit(4)\n")
    with pytest.raises(ValueError, match=re.escape("exit status 4")):
        load_rewards(RewardConfig(functions=(f"{tmp_path}/ends.py:f",)))


def test_integers_beyond_floats_are_refused_here_too():
    pool = GraderPool(1, 1.0, 256)
    rewards = Rewards({"f": lambda completions: [10**400]}, weights=[1.0], pool=pool)
    with pytest.raises(ValueError, match="'f' returned a number beyond all floats for completion 0"):
        rewards.score([""], ["a"], {})
