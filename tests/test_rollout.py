"""The two stages with a scripted sampler and a dictionary reward: no model anywhere."""

import numpy as np
import pytest

from igrpo_jax.config import AlgorithmConfig, PromptConfig
from igrpo_jax.drive import Draft
from igrpo_jax.prompts import Prompter
from igrpo_jax.records.metrics import rollout_metrics
from igrpo_jax.records.samples import sample_record
from igrpo_jax.records.samples import shown as summary
from igrpo_jax.replay import decoded, encoded
from igrpo_jax.rewards import Scores
from igrpo_jax.rollout import rollout
from igrpo_jax.types import DRAFT, REFINE, Problem, Samples, Usage, in_round

PROBLEMS = [Problem(7, "Q7", {"answer": "right"}), Problem(9, "Q9", {"answer": "right"})]


class Letters:
    """A tokenizer whose tokens are code points."""

    all_special_tokens = ("<end>",)
    chat_template = None

    def encode(self, text, *, add_special_tokens):
        return [ord(c) for c in text]

    def apply_chat_template(self, conversation, **kwargs):
        raise AssertionError("it has no chat template")

    def decode(self, token_ids, *, skip_special_tokens):
        return "".join(chr(t) for t in token_ids)


class Script:
    """Answers with given texts by stage and problem, together or one by one, and remembers what it was asked."""

    def __init__(self, *, together=True, order=None, **texts):
        self.texts, self.calls = {DRAFT: texts["drafts"], REFINE: texts.get("refinements")}, []
        self.texts |= {in_round(REFINE, i): some for i, some in enumerate(texts.get("later", ()), start=1)}
        self.together, self.order = together, order

    def __call__(self, requests, *, step, follow):
        waiting = list(requests)
        while waiting:
            if self.order:
                self.order.shuffle(waiting)
            served = [waiting.pop() for _ in range(len(waiting) if self.together else 1)]
            self.calls += [(r.stage, r.id, "".join(map(chr, r.prompt)), step) for r in served]
            waiting += follow([(request, self.samples(request)) for request in served])
        return Usage(80, 100, {DRAFT: 1.0}, 0.0)

    def samples(self, request):
        texts = self.texts[request.stage][request.index]
        assert len(texts) == request.num_samples
        tokens = np.zeros((len(texts), 16), np.int32)
        for row, text in zip(tokens, texts, strict=True):
            row[: len(text)] = [ord(c) for c in text]
        lengths = np.array([len(text) for text in texts], np.int32)
        return Samples(tokens, lengths, lengths < 10, np.zeros(tokens.shape, np.float32))


def reward(prompts, completions, columns):
    """1 for the gold answer, by a dictionary."""
    assert columns["answer"] == ["right"] * len(completions)
    assert columns["completion_ids"] == [list(map(ord, text)) for text in completions]
    values = np.array([{"right": 1.0}.get(text, 0.0) for text in completions], np.float32)
    return Scores(
        values,
        {"accuracy": values},
        list(completions),
        ["exact"] * len(completions),
        *np.zeros((2, len(completions)), int),
    )


def run(script, problems=PROBLEMS, count=None, past=None, **algorithm):
    config = AlgorithmConfig(**{"num_drafts": 2, "num_generations": 2} | algorithm)
    prompts = PromptConfig(question="{question}", refine="{question}|{draft}", max_draft_length=20)
    return rollout(
        problems, sample=script, reward=reward, prompter=Prompter(Letters(), prompts), config=config,
        seed=0, step=3, refinement_limit=40, count=count, past=past,
    )  # fmt: skip


@pytest.mark.parametrize("together", [True, False])
def test_the_best_draft_conditions_the_refinements_and_both_stages_are_scored(together):
    script = Script(
        drafts=[["no", "right"], ["right", "bad"]], refinements=[["right", "no"], ["no", "no"]], together=together
    )
    result = run(script)
    asked = [(DRAFT, 9, "Q9", 3), (DRAFT, 7, "Q7", 3), (REFINE, 7, "Q7|right", 3), (REFINE, 9, "Q9|right", 3)]
    assert script.calls == (asked if together else [asked[i] for i in (0, 3, 1, 2)])
    assert [draft.index for draft in result.refinements.drafts] == [1, 0]
    assert result.drafts.rewards.tolist() == [[0, 1], [1, 0]]
    assert result.refinements.rewards.tolist() == [[1, 0], [0, 0]]
    assert result.refinements.prompts == [[*map(ord, "Q7|right")], [*map(ord, "Q9|right")]]
    np.testing.assert_allclose(result.refinements.advantages, [[1, -1], [0, 0]], atol=1e-5)


@pytest.mark.parametrize(
    ("select", "drafts"),
    [("worst", ["Q7|no", "Q9|bad"]), ("none", ["Q7", "Q9"]), ("wrong_first", ["Q7|no", "Q9|bad"])],
)
def test_other_selections(select, drafts):
    script = Script(drafts=[["no", "right"], ["right", "bad"]], refinements=[["right", "no"], ["no", "no"]])
    run(script, select=select)
    assert [call[2] for call in script.calls[2:]] == drafts


def test_wrong_first_takes_any_draft_where_none_is_wrong():
    script = Script(drafts=[["right", "right"], ["right", "no"]], refinements=[["no", "no"], ["no", "no"]])
    result = run(script, select="wrong_first", tie_break="first")
    assert [(draft.index, draft.right) for draft in result.refinements.drafts] == [(0, True), (1, False)]


@pytest.mark.parametrize(("drafts", "refinements"), [(1, 5), (5, 2)])
def test_stages_may_have_different_numbers(drafts, refinements):
    texts = ["right", "no", "a", "b", "c"]
    result = run(
        Script(drafts=[texts[:drafts]] * 2, refinements=[texts[:refinements]] * 2),
        num_drafts=drafts, num_generations=refinements,
    )  # fmt: skip
    assert result.drafts.rewards.shape == (2, drafts) and result.refinements.rewards.shape == (2, refinements)
    assert [draft.index for draft in result.refinements.drafts] == [0, 0]


def test_ties_are_broken_by_problem_and_step_not_by_place():
    texts = [["a", "b", "c", "d"], ["a", "b", "c", "d"]]
    chosen = []
    for problems in (PROBLEMS, PROBLEMS[::-1]):
        script = Script(drafts=texts, refinements=texts)
        prompter = Prompter(Letters(), PromptConfig())
        config = AlgorithmConfig(num_drafts=4, num_generations=4)
        got = rollout(
            problems, sample=script, reward=reward, prompter=prompter, config=config, seed=0, step=3,
            refinement_limit=400,
        )  # fmt: skip
        drafts = got.refinements.drafts
        chosen.append({p.id: draft.index for p, draft in zip(problems, drafts, strict=True)})
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("together", [True, False])
def test_each_round_refines_the_best_refinement_so_far_and_the_last_is_trained_on(together):
    script = Script(
        drafts=[["no", "right"], ["bad", "no"]],
        refinements=[["right", "no"], ["worse", "poor"]],
        later=[[["a", "b"], ["right", "poor"]], [["c", "right"], ["d", "e"]]],
        together=together,
    )
    result = run(script, rounds=3, tie_break="first")
    asked = [(stage, prompt) for stage, _, prompt, _ in script.calls]
    assert sorted(asked) == [
        (DRAFT, "Q7"), (DRAFT, "Q9"), (REFINE, "Q7|right"), (REFINE, "Q9|bad"), (in_round(REFINE, 1), "Q7|right"),
        (in_round(REFINE, 1), "Q9|worse"), (in_round(REFINE, 2), "Q7|right"), (in_round(REFINE, 2), "Q9|right"),
    ]  # fmt: skip
    assert len({stage for stage, _ in asked}) == len(result.stages) == 4  # a key of their own for each
    assert result.drafts.rewards.tolist() == [[0, 1], [0, 0]]
    assert result.refinements.rewards.tolist() == [[0, 1], [0, 0]]
    metrics = rollout_metrics(result)
    assert metrics["reward"] == 0.25 and metrics["round_1/reward"] == 0.25 and metrics["round_2/reward"] == 0.25
    assert metrics["refine/gain"] == pytest.approx(0.25 - 1.0)  # both last drafts are right ones


def test_no_drafts_is_grpo():
    script = Script(drafts=[["right", "no"], ["no", "no"]])
    result = run(script, num_drafts=0)
    assert [call[2] for call in script.calls] == ["Q9", "Q7"]
    assert result.drafts is None and result.refinements.drafts == [None, None]
    assert "draft/reward" not in rollout_metrics(result) and "refine/gain" not in rollout_metrics(result)


def test_an_answer_is_copied_whatever_was_thought():
    script = Script(
        drafts=[["</think>a", "no"], ["</think>b", "no"]],
        refinements=[["x</think>a", "a"], ["b </think>", "</think>c"]],
    )
    prompter = Prompter(Letters(), PromptConfig(refine="{question}|{draft}", strip_think=True))
    config = AlgorithmConfig(num_drafts=2, num_generations=2, tie_break="first")
    got = rollout(
        PROBLEMS, sample=script, reward=reward, prompter=prompter, config=config, seed=0, step=3, refinement_limit=40,
    )  # fmt: skip
    assert sorted(call[2] for call in script.calls[2:]) == ["Q7|a", "Q9|b"]
    assert got.refinements.copied.tolist() == [2, 0]


def test_metrics_say_what_refining_did():
    script = Script(
        drafts=[["no", "right"], ["wrong", "wrong"]],
        refinements=[["right", "a longer text"], ["right", "wrong"]],
    )
    metrics = rollout_metrics(run(script))
    expected = {
        "reward": 0.5,
        "reward_std": 0.5,
        "frac_reward_zero_std": 0.0,
        "completions/clipped_ratio": 0.25,
        "completions/mean_length": (5 + 13 + 5 + 5) / 4,
        "draft/reward": 0.25,
        "draft/reward_best": 0.5,
        "draft/all_wrong": 0.5,
        "refine/gain": 0.0,
        "refine/fixed": 0.5,
        "refine/broken": 0.5,
        "refine/copied": 0.5,
        "refine/zero_std_right": 0.0,
        "refine/zero_std_wrong": 0.0,
        "sampling/row_utilization": 0.8,
        "num_tokens": float(5 + 13 + 5 + 5 + 2 + 5 + 5 + 5),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_a_record_holds_all_samples_of_a_problem_and_says_which_draft_was_chosen():
    script = Script(drafts=[["no", "right"], ["right", "bad"]], refinements=[["right", "no"], ["no", "no"]])
    some = run(script)
    record = sample_record(some.problems[0], 0, some.stages, lambda tokens: "".join(map(chr, tokens)))

    def completion(text, right, advantage):
        return {
            "text": text, "tokens": len(text), "ended": True, "reward": float(right), "right": right,
            "rewards": {"accuracy": float(right)}, "parsed": text, "reason": "exact",
            "advantage": pytest.approx(advantage, abs=1e-5),
        }  # fmt: skip

    assert record == {
        "problem": some.problems[0].id, "question": "Q7", "gold": "right", "stages": [
            {"stage": 1, "draft": None, "completions": [completion("no", False, -1), completion("right", True, 1)]},
            {"stage": 2, "draft": [1, 1], "completions": [completion("right", True, 1), completion("no", False, -1)]},
        ],
    }  # fmt: skip
    row = summary(record)
    assert (row["draft"]["text"], row["refinement"]["text"], row["gold"]) == ("right", "right", "right")


MANY = [Problem(number, f"Q{number}", {"answer": "right"}) for number in range(9)]
FLAT, SPREAD, SOLVED = ["no", "no"], ["no", "right"], ["right", "right"]


def test_a_solved_problem_is_not_refined_and_the_next_one_takes_its_place():
    script = Script(drafts=[SOLVED, SPREAD, FLAT, SOLVED, SPREAD], refinements=[None, FLAT, SPREAD, None, SPREAD])
    result = run(script, MANY[:5], count=2, skip_solved=True)
    assert sorted(call[:2] for call in script.calls) == [(DRAFT, 0), (DRAFT, 1), (DRAFT, 2), (REFINE, 1), (REFINE, 2)]
    assert [problem.id for problem in result.problems] == [1, 2] and result.missing == 0
    assert result.drafts.rewards.tolist() == [[0, 1], [0, 0]]
    assert result.refinements.rewards.tolist() == [[0, 0], [0, 1]]
    metrics = rollout_metrics(result)
    expected = {
        "draft/reward": 0.5, "draft/skipped": 1 / 3, "sampling/extra_problems": 1.0, "sampling/missing_problems": 0.0,
        "sampling/extra_tokens": 10.0, "num_tokens": 10 + 7 + 4 + 4 + 7, "reward": 0.25,
    }  # fmt: skip
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("drafts", [0, 2])
def test_a_problem_without_spread_is_left_out_and_what_it_cost_is_counted(drafts):
    stages = {"drafts": [FLAT] * 5, "refinements": [SPREAD, FLAT, SOLVED, SPREAD, SPREAD]}
    if not drafts:
        stages = {"drafts": stages["refinements"]}
    script = Script(**stages)
    result = run(script, MANY[:5], count=2, num_drafts=drafts, dynamic_sampling=True, select="best")
    assert [problem.id for problem in result.problems] == [0, 3] and result.missing == 0
    assert result.refinements.rewards.tolist() == [[0, 1], [0, 1]]
    assert {call[1] for call in script.calls} == {0, 1, 2, 3}
    metrics = rollout_metrics(result)
    expected = {
        "reward": 0.5, "frac_reward_zero_std": 0.5, "sampling/extra_problems": 2.0, "sampling/missing_problems": 0.0,
        "sampling/extra_tokens": 4 + 10 + 2 * (4 if drafts else 0),
    }  # fmt: skip
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert ("draft/skipped" in metrics) == bool(drafts)
    if drafts:
        assert metrics["refine/zero_std_wrong"] == 0.5 and metrics["refine/fixed"] == 0.5


def test_where_no_more_can_be_drawn_the_step_has_too_few():
    script = Script(drafts=[SOLVED, SPREAD, SOLVED], refinements=[None, SPREAD, None])
    result = run(script, MANY[:3], count=2, skip_solved=True)
    assert [problem.id for problem in result.problems] == [1] and result.missing == 1
    assert rollout_metrics(result)["sampling/missing_problems"] == 1.0


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_step_may_have_nothing_to_train_on(rounds):
    result = run(Script(drafts=[SOLVED] * 3), MANY[:3], count=2, skip_solved=True, rounds=rounds)
    assert result.problems == [] and result.missing == 2
    assert [stage.rewards.shape for stage in result.stages] == [(0, 2)] * (1 + rounds)
    assert result.refinements.samples.tokens.shape == (0, 2, 16)
    metrics = rollout_metrics(result)
    assert metrics["draft/reward"] == metrics["draft/skipped"] == 1.0 and "reward" not in metrics
    assert metrics["sampling/extra_tokens"] == metrics["num_tokens"] == 30


@pytest.mark.parametrize("seed", range(20))
def test_which_problems_are_trained_on_does_not_hang_on_time(seed):
    random = np.random.default_rng(seed)
    kinds = [FLAT, SPREAD, SOLVED]
    drafts, refinements = ([kinds[i] for i in random.integers(3, size=9)] for _ in range(2))
    count, asked = int(random.integers(1, 6)), {"skip_solved": seed % 2 == 0, "dynamic_sampling": seed % 3 > 0}
    use = [
        (refined is SPREAD or not asked["dynamic_sampling"]) and not (drafted is SOLVED and asked["skip_solved"])
        for drafted, refined in zip(drafts, refinements, strict=True)
    ]
    kept = [p for p, useful in enumerate(use) if useful][:count]
    begun = range(kept[-1] + 1 if len(kept) == count else 9)
    if not any(asked.values()):
        kept = begun = range(count)
    for order in range(5):
        script = Script(drafts=drafts, refinements=refinements, together=False, order=np.random.default_rng(order))
        result = run(script, MANY, count=count, **asked)
        assert [problem.id for problem in result.problems] == list(kept)
        assert {call[1] for call in script.calls} == set(begun)
        assert result.missing == count - len(kept)


def earlier(text, reward, step=2):
    return Draft(DRAFT, 1, [ord(c) for c in text], reward, reward > 0, step)


@pytest.mark.parametrize(
    ("past", "shown"),
    [
        ({7: earlier("right", 1.0)}, ["Q7|right", "Q9|a"]),  # better than this step's
        ({7: earlier("old", 0.0), 9: earlier("older", -1.0)}, ["Q7|old", "Q9|a"]),  # as good; worse
        ({8: earlier("right", 1.0)}, ["Q7|no", "Q9|a"]),  # of another problem
        (None, ["Q7|no", "Q9|a"]),
    ],
)
def test_the_best_earlier_draft_is_shown_again_where_it_is_no_worse(past, shown):
    script = Script(drafts=[["no", "bad"], ["a", "b"]], refinements=[["right", "no"], ["no", "no"]])
    result = run(script, past=past, replay=1.0, tie_break="first")
    assert [call[2] for call in script.calls[2:]] == shown
    replayed = [draft.step is not None for draft in result.refinements.drafts]
    assert rollout_metrics(result)["draft/replayed"] == sum(replayed) / 2
    record = sample_record(PROBLEMS[0], 0, result.stages, lambda tokens: "".join(map(chr, tokens)))
    if replayed[0]:
        text = shown[0].removeprefix("Q7|")
        assert record["stages"][1]["draft"] == {"text": text, "reward": past[7].reward, "step": 2}
        assert summary(record)["draft"]["text"] == text
    else:
        assert record["stages"][1]["draft"] == [DRAFT, 0] and summary(record)["draft"]["text"] == "no"


def test_the_best_drafts_of_all_that_was_sampled_are_remembered_and_equally_good_ones_are_no_better():
    script = Script(
        drafts=[["no", "right"], ["right", "right"], ["a", "b"], ["c", "d"]],
        refinements=[["right", "no"], None, ["no", "no"]],
    )
    past = {0: earlier("right", 1.0), 2: earlier("bad", -1.0), 5: earlier("right", 1.0)}
    result = run(script, MANY[:4], count=2, past=past, replay=0.5, skip_solved=True)
    assert result.past == {
        0: past[0], 1: Draft(DRAFT, 0, [ord(c) for c in "right"], 1.0, True, 4),
        2: Draft(DRAFT, 0, [ord("a")], 0.0, False, 4), 5: past[5],
    }  # fmt: skip
    assert len(past) == 3  # what was known before the step is left alone
    assert decoded(encoded(result.past)) == result.past
    assert run(Script(drafts=[["no"] * 2] * 2, refinements=[["no"] * 2] * 2), past=past).past is None


def test_earlier_drafts_are_shown_again_as_often_as_is_asked_for():
    problems = [Problem(number, "Q", {"answer": "right"}) for number in range(2000)]
    past = {problem.id: earlier("right", 1.0) for problem in problems}
    script = Script(drafts=[["no", "no"]] * 2000, refinements=[["no", "no"]] * 2000)
    share = rollout_metrics(run(script, problems, past=past, replay=0.25))["draft/replayed"]
    assert share == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 2000))
