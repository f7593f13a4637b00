"""Rewards are added up, and what is no reward is an error that names the function."""

import math

import numpy as np
import pytest

from igrpo_jax.rewards import Rewards, Scores, Verdict
from tests.rewards import jobs


def make(pool, weights=None, **functions):
    return Rewards(functions, weights=weights or [1.0] * len(functions), pool=pool)


def test_weighted_sum_and_reasons(pool):
    def judge(prompts, completions, answer, **columns):
        return [Verdict(1.0, "exact", "a"), Verdict(0.0, "timeout"), Verdict(0.0, "memory"), None]

    scores = make(pool, [2.0, 0.5], judge=judge, length=jobs.length).score(
        ["p"] * 4, ["a", "bb", "", "dddd"], {"answer": ["a"] * 4, "other": [1] * 4}
    )
    np.testing.assert_array_equal(scores.total, np.array([2.5, 1.0, 0.0, 2.0], np.float32))
    assert scores.total.dtype == np.float32 and scores.each["length"].dtype == np.float32
    np.testing.assert_array_equal(scores.each["judge"], [1.0, 0.0, 0.0, np.nan])
    assert scores.parsed == ["a", None, None, None]
    assert scores.reasons == ["exact", "timeout", "memory", ""]
    assert (scores.timeouts.tolist(), scores.errors.tolist()) == ([0, 1, 0, 0], [0, 0, 1, 0])
    again = Scores.join([scores.part(0, 1), scores.part(1, 4)])
    for name in ("total", "parsed", "reasons", "timeouts", "errors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scores, name))
    np.testing.assert_array_equal(again.each["judge"], scores.each["judge"])


def test_functions_get_the_columns_they_name(pool):
    scores = make(pool, has_hint=jobs.has_hint, length=jobs.length)(
        ["p"] * 3, ["say x", "say y", "z"], {"hint": ["x", "x", None], "unused": [0, 0, 0]}
    )
    np.testing.assert_array_equal(scores.each["has_hint"], [1.0, 0.0, np.nan])
    assert scores.reasons == ["", "", ""] and scores.parsed == [None] * 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (jobs.raises, r"'f' raised KeyError: 'lost'; it must return one number"),
        (jobs.too_short, r"'f' returned 1 values for 2 completions; it must return a list of 2"),
        (jobs.not_a_number, r"'f' returned nan for completion 1; it must return"),
        (jobs.words, r"'f' returned 'good' for completion 0; it must return"),
        (jobs.nothing, r"'f' returned NoneType 'None'; it must return"),
        (jobs.only_even, r"no reward applies to completion 1: f returned None for it; add"),
        (jobs.has_hint, r"'f' needs the column hint, but the data has answer; choose"),
    ],
)
def test_bad_rewards_are_named(pool, function, message):
    with pytest.raises(ValueError, match=message):
        make(pool, f=function).score(["p"] * 2, ["a", "b"], {"answer": ["a", "b"]})


def scores_of(**each):
    each = {name: np.array(values, np.float32) for name, values in each.items()}
    size = len(next(iter(each.values())))
    return Scores(np.zeros(size, np.float32), each, [None] * size, [""] * size, *np.zeros((2, size), int))


@pytest.mark.parametrize(
    ("each", "name", "right"),
    [
        ({"accuracy": [1, 0, 1], "ended": [0, 1, 0]}, "", [True, False, True]),
        ({"ended": [0, 1, 0], "accuracy": [1, 0, 1]}, "", [True, False, True]),
        ({"gym": [1, 0.01, 0.99], "format": [0, 1, 1]}, "", [True, False, False]),  # part of the marks is not right
        ({"gym": [math.nan, 1, 0.5], "accuracy": [1, math.nan, math.nan]}, "", [True, True, False]),
        ({"gym": [0, 0, 1], "accuracy": [1, 1, 0]}, "", [True, True, False]),
        ({"accuracy": [math.nan, 1, 0], "ended": [1, 1, 1]}, "", [False, True, False]),
        ({"mine": [0.2, 0, -1], "ended": [0, 1, 1]}, "mine", [True, False, False]),
    ],
)
def test_right_is_what_accuracy_says_whatever_is_rewarded_first(each, name, right):
    found = scores_of(**each).right()
    assert (found[0], found[1].tolist()) == (name, right)


def test_reasons_are_of_the_function_that_judged_the_row(pool):
    def first(completions, **columns):
        return [Verdict(1.0, "exact", "a"), None]

    def second(completions, **columns):
        return [Verdict(0.0, "unequal", "b"), Verdict(0.5, "partial", "c")]

    scores = make(pool, first=first, second=second).score(["p"] * 2, ["x", "y"], {})
    assert (scores.parsed, scores.reasons) == (["a", "c"], ["exact", "partial"])


def test_functions_get_what_they_name_and_lists_of_their_own(pool):
    def spoils(completions, question, completion_ids=None):
        values = [float(len(q) + len(ids)) for q, ids in zip(question, completion_ids, strict=True)]
        completions.clear()
        question.clear()
        return values

    def whole(prompts, completions, question, **columns):
        return [float(len(completions) + len(question))] * len(prompts)

    columns = {"question": ["ab", "c"], "completion_ids": [[7, 8], [9]]}
    scores = make(pool, spoils=spoils, whole=whole).score(["p"] * 2, ["x", "y"], columns)
    assert scores.each["spoils"].tolist() == [4, 2] and scores.each["whole"].tolist() == [4, 4]
    assert make(pool, spoils=spoils, whole=whole).needed == {"question"}
