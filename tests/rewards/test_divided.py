"""Graded in parts, the scores are those of the whole."""

import threading

import numpy as np
import pytest

from igrpo_jax.rewards import Scores, divided


def score(prompts, completions, columns):
    """Length plus the column `bonus`; refuses an empty call and the completion 'bad'."""
    assert len(prompts) == len(completions) == len(columns["bonus"]) > 0
    if "bad" in completions:
        raise ValueError("reward 'length' raised")
    total = np.array([len(c) + b for c, b in zip(completions, columns["bonus"], strict=True)], np.float32)
    none = np.zeros(len(total), np.int32)
    return Scores(total, {"length": total}, list(completions), ["" for _ in completions], none, none)


@pytest.fixture
def together(in_threads):
    """`together(count, completions)`: what each process gets or raises, and how many completions each graded."""

    def run(count, completions):
        answers, sizes, barrier = [None] * count, [0] * count, threading.Barrier(count)

        def grade(index):
            def share(name, value):
                answers[index] = value
                barrier.wait(20)
                return list(answers)

            def counted(prompts, texts, columns):
                sizes[index] += len(texts)
                return score(prompts, texts, columns)

            whole = divided(counted, index=index, count=count, share=share)
            return whole(["q"] * len(completions), completions, {"bonus": list(range(len(completions)))})

        return in_threads(count, grade), sizes

    return run


@pytest.mark.parametrize(("count", "size"), [(2, 7), (3, 12), (4, 2)])
def test_every_process_gets_all_scores_and_grades_its_part(together, count, size):
    texts = ["a" * (i % 5) for i in range(size)]
    results, sizes = together(count, texts)
    whole = score(["q"] * size, texts, {"bonus": list(range(size))})
    for result in results:
        assert result.total.tolist() == whole.total.tolist() and result.parsed == texts
        assert result.each["length"].tolist() == whole.each["length"].tolist()
    assert sum(sizes) == size and max(sizes) <= -(-size // count)


def test_an_error_in_one_part_is_raised_in_all(together):
    results, _ = together(3, ["a", "b", "c", "d", "bad", "f"])
    assert [str(error) for error in results] == ["reward 'length' raised"] * 3
