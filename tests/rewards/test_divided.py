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


def together(count, completions):
    """What each of `count` processes gets or raises, and how many completions each graded."""
    answers, results, sizes = [None] * count, [None] * count, [0] * count
    barrier = threading.Barrier(count)

    def run(index):
        def share(name, value):
            answers[index] = value
            barrier.wait(20)
            return list(answers)

        def counted(prompts, texts, columns):
            sizes[index] += len(texts)
            return score(prompts, texts, columns)

        grade = divided(counted, index=index, count=count, share=share)
        try:
            results[index] = grade(["q"] * len(completions), completions, {"bonus": list(range(len(completions)))})
        except ValueError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return results, sizes


@pytest.mark.parametrize(("count", "size"), [(2, 7), (3, 12), (4, 2)])
def test_every_process_gets_all_scores_and_grades_its_part(count, size):
    texts = ["a" * (i % 5) for i in range(size)]
    results, sizes = together(count, texts)
    whole = score(["q"] * size, texts, {"bonus": list(range(size))})
    for result in results:
        assert result.total.tolist() == whole.total.tolist() and result.parsed == texts
        assert result.each["length"].tolist() == whole.each["length"].tolist()
    assert sum(sizes) == size and max(sizes) <= -(-size // count)


def test_an_error_in_one_part_is_raised_in_all():
    results, _ = together(3, ["a", "b", "c", "d", "bad", "f"])
    assert [str(error) for error in results] == ["reward 'length' raised"] * 3
