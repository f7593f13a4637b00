"""Evaluation against literals, with a scripted sampler."""

import math

import numpy as np
import pytest

from igrpo_jax.config import PromptConfig
from igrpo_jax.evaluate import evaluate, majority, pass_at_k
from igrpo_jax.prompts import Prompter
from igrpo_jax.rewards import Scores
from igrpo_jax.types import Problem, Samples, Usage


class Digits:
    """A tokenizer of decimal digits."""

    all_special_tokens = ()
    chat_template = None

    def encode(self, text, *, add_special_tokens):
        return [ord(c) for c in text]

    def apply_chat_template(self, conversation, **kwargs):
        raise AssertionError("it has no chat template")

    def decode(self, token_ids, *, skip_special_tokens):
        return "".join(map(str, token_ids))


ANSWERS = {1: [1, 1, 2, 3], 2: [3, 3, 2, 4], 3: [3, 5, 3, 3]}
"""Four samples of three problems; the gold answer is the problem's id."""


def scripted(calls):
    def sample(requests, *, step, follow):
        for request in requests:
            calls.append((request.id, step, request.stage, "".join(map(chr, request.prompt))))
            tokens = np.array([[a] for a in ANSWERS[request.id]], np.int32)
            ones = np.ones(len(tokens), np.int32)
            further = follow([(request, Samples(tokens, ones, ones.astype(bool), np.zeros(tokens.shape, np.float32)))])
            sample(further, step=step, follow=follow)
        return Usage(0, 0, {}, 0.0)

    return sample


def reward(prompts, completions, columns):
    right = np.array([float(c == g) for c, g in zip(completions, columns["answer"], strict=True)], np.float32)
    return Scores(right, {"accuracy": right}, list(completions), [""] * len(right), *np.zeros((2, len(right)), int))


def run(calls, *, refine=False, ids=(1, 2, 3), reward=reward):
    return evaluate(
        [Problem(i, f"q{i}", {"answer": str(i)}) for i in ids], sample=scripted(calls), reward=reward,
        prompter=Prompter(Digits(), PromptConfig(refine="{question}/{draft}")), num_samples=4, refine=refine,
        refinement_limit=99,
    )  # fmt: skip


def test_scores_are_the_literal_ones():
    calls = []
    shares = np.array([0.5, 0.25, 0.75])
    assert run(calls) == pytest.approx(
        {
            "avg@4": shares.mean(), "avg@4_stderr": shares.std(ddof=1) / math.sqrt(3), "pass@1": shares.mean(),
            "pass@2": np.mean([1 - 1 / 6, 1 - 3 / 6, 1.0]), "pass@4": 1.0, "maj@4": 2 / 3, "mean_length": 1.0,
            "clipped_ratio": 0.0,
        }
    )  # fmt: skip
    assert calls == [(1, 0, 3, "q1"), (2, 0, 3, "q2"), (3, 0, 3, "q3")]


def test_metrics_say_what_was_counted_whatever_is_rewarded_first():
    def first(each):
        def scored(prompts, completions, columns):
            plain = reward(prompts, completions, columns)
            return plain._replace(each={name: plain.total if name == "accuracy" else values for name, values in each})

        return scored

    half = np.full(4, 0.5, np.float32)
    accuracy = {name: value for name, value in run([]).items() if "@" in name}
    for order in ([("mine", half), ("accuracy", half)], [("accuracy", half), ("mine", half)]):
        results = run([], reward=first(order))
        assert {name: value for name, value in results.items() if "@" in name} == accuracy
        assert results["rewards/mine/mean"] == 0.5
    results = run([], reward=first([("mine", np.array([0.5, 0, -1, 0], np.float32))]))
    assert results == pytest.approx(
        {
            "mine/avg@4": 0.25, "mine/avg@4_stderr": 0.0, "mine/pass@1": 0.25, "mine/pass@2": 0.5, "mine/pass@4": 1.0,
            "rewards/mine/mean": -0.125, "mean_length": 1.0, "clipped_ratio": 0.0,
        }
    )  # fmt: skip


def test_one_problem_has_no_standard_error():
    results = run([], ids=(2,))
    assert results["avg@4"] == 0.25 and "avg@4_stderr" not in results
    assert all(map(math.isfinite, results.values()))


def test_drafted_prompts_hold_the_first_bare_answer():
    calls = []
    results = run(calls, refine=True)
    assert [call[2:] for call in calls[:4]] == [(3, "q1"), (4, "q1/1"), (3, "q2"), (4, "q2/3")]
    assert results["drafted/avg@4"] == pytest.approx(0.5)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    assert pass_at_k(4, 0, 2) == 0.0
    assert pass_at_k(4, 3, 2) == 1.0
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)


def test_majority_ignores_unparsed_answers_and_is_not_the_last_verdict():
    assert majority(["7", None, None, None], [True, False, False, False])
    assert not majority(["7", "8", "8"], [True, False, False])
    assert not majority([None, None], [False, False])
