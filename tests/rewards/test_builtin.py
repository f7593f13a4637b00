"""The built-in rewards, called as a training step calls them."""

import pytest

from igrpo_jax.rewards import GraderPool
from igrpo_jax.rewards.builtin import accuracy, ended_reward, format_reward


class CountingPool(GraderPool):
    """A pool that remembers what was sent to it."""

    seen: list | None = None

    def map(self, function, items):
        self.seen = list(items)
        return super().map(function, items)


def test_accuracy_gives_reasons(pool):
    completions = [
        r"so \boxed{4}",
        "it is 5",
        r"\boxed{\sqrt{16}}",
        r"\boxed{9^{9^{9^9}}}",
        "dunno",
        r"\boxed{\frac{1}{}}",
    ]
    verdicts = accuracy(pool)(prompts=[""] * 6, completions=completions, answer=["4"] * 6)
    assert verdicts == [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert [v.reason for v in verdicts] == ["exact", "unequal", "symbolic", "too_large", "no_answer", "parse_failed"]
    assert [v.parsed for v in verdicts] == ["4", "5", r"\sqrt{16}", "9^{9^{9^9}}", None, r"\frac{1}{}"]


def test_accuracy_reads_only_the_completion(pool):
    """The prompt holds the right answer in a box; the completion has none."""
    (verdict,) = accuracy(pool)(prompts=[r"For example \boxed{4}."], completions=["I do not know."], answer=["4"])
    assert (float(verdict), verdict.reason) == (0.0, "no_answer")


def test_only_distinct_symbolic_pairs_leave_the_process():
    pool = CountingPool(1, 5.0, 256)
    with pool:
        grade = accuracy(pool)
        assert grade(prompts=[""] * 3, completions=["4", "5", "4.0"], answer=[4, 4, 4.0]) == [1.0, 0.0, 1.0]
        assert pool.seen is None
        assert grade(prompts=[""] * 3, completions=[r"\boxed{x+x}"] * 3, answer=["2x", "2x", "3x"]) == [1.0, 1.0, 0.0]
        assert pool.seen == [("x+x", "2x"), ("x+x", "3x")]


def test_accuracy_takes_numbers_and_skips_missing_golds(pool):
    assert accuracy(pool)(prompts=[""] * 3, completions=["204", "0.5", "1"], answer=[204, 0.5, None]) == [
        1.0,
        1.0,
        None,
    ]
    with pytest.raises(ValueError, match=r"holds a list.*data\.answer_column"):
        accuracy(pool)(prompts=[""], completions=["1"], answer=[["1"]])


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        (" <think>a</think>\n\n<answer>b</answer>\n", 1.0),
        ("the prompt opened it</think><answer>b</answer>", 1.0),
        ("<think>a</think>", 0.0),
        ("<answer>b</answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("x<think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think>so<answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer> end", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think><think>a</think></think><answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_format(text, reward):
    assert format_reward(prompts=[""], completions=[text], answer=["b"]) == [reward]


def test_ended():
    assert ended_reward(prompts=[""] * 2, completions=["a", "b"], ended=[True, False], answer=["", ""]) == [1.0, 0.0]
