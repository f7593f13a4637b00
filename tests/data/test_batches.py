from collections import Counter
from dataclasses import dataclass

import pytest

from igrpo_jax.data import make_batches
from igrpo_jax.data.batches import ID_STRIDE
from igrpo_jax.types import Problem


@dataclass
class Numbered:
    """A source whose i-th problem has the id i + first."""

    size: int
    name: str = "numbered"
    endless: bool = False
    first: int = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Problem:
        return Problem(index + self.first, f"{self.name} {index}", {"answer": str(index)})


def ids(sources, steps, *, mixture=(), problems_per_step=4, seed=0):
    batch = make_batches(sources, mixture=mixture, problems_per_step=problems_per_step, seed=seed)
    return [[problem.id for problem in batch(step)] for step in steps]


def flat(batches):
    return [number for batch in batches for number in batch]


def test_every_problem_comes_once_an_epoch_in_another_order():
    numbers = flat(ids([Numbered(10)], range(10)))
    epochs = [tuple(numbers[start : start + 10]) for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 4


def test_the_first_batches_never_change():
    # Runs resumed with another version must see the data that they would have seen.
    assert ids([Numbered(10)], range(3), seed=7) == [[8, 0, 7, 1], [3, 6, 2, 4], [5, 9, 8, 2]]
    assert ids([Numbered(10), Numbered(6)], range(2), mixture=(2, 1), seed=7) == [
        [8, 0, ID_STRIDE + 3, 7],
        [1, ID_STRIDE + 0, 3, 6],
    ]


@pytest.mark.parametrize("mixture", [(), (0.2, 0.5, 0.3)])
def test_a_step_needs_no_earlier_step(mixture):
    sources = [Numbered(10), Numbered(7), Numbered(1000, endless=True)]
    through = ids(sources, range(50), mixture=mixture)
    assert ids(sources, range(20, 50), mixture=mixture) == through[20:]
    assert ids(sources, reversed(range(50)), mixture=mixture) == through[::-1]
    assert ids(sources, [49, 49], mixture=mixture) == [through[49]] * 2


def test_the_portions_do_not_change_the_order():
    sources = [Numbered(10), Numbered(20)]
    assert flat(ids(sources, range(30), problems_per_step=2)) == flat(ids(sources, range(12), problems_per_step=5))


def test_seeds_differ():
    one, other = (flat(ids([Numbered(100)], range(25), seed=seed)) for seed in (0, 1))
    assert one != other
    assert sorted(one) == sorted(other)


def test_a_mixture_keeps_its_proportions_at_every_step():
    sources = [Numbered(50), Numbered(40), Numbered(30)]
    counts = Counter()
    for step, batch in enumerate(ids(sources, range(200), mixture=(5, 3, 2), problems_per_step=7, seed=3), 1):
        counts.update(number // ID_STRIDE for number in batch)
        for source, share in enumerate((0.5, 0.3, 0.2)):
            assert abs(counts[source] - share * 7 * step) <= 2


def test_each_source_of_a_mixture_goes_through_its_own_epochs():
    sources = [Numbered(50), Numbered(40), Numbered(30)]
    numbers = flat(ids(sources, range(100), mixture=(5, 3, 2)))
    for source, size in enumerate((50, 40, 30)):
        own = [number % ID_STRIDE for number in numbers if number // ID_STRIDE == source]
        assert len(own) >= 2 * size
        assert sorted(own[:size]) == sorted(own[size : 2 * size]) == list(range(size))


def test_weights_unless_given_follow_size_or_are_equal_with_an_endless_source():
    numbers = flat(ids([Numbered(30), Numbered(10)], range(100)))
    assert Counter(number // ID_STRIDE for number in numbers) == {0: 300, 1: 100}
    numbers = flat(ids([Numbered(30), Numbered(10**6, endless=True)], range(100)))
    assert Counter(number // ID_STRIDE for number in numbers) == {0: 200, 1: 200}


def test_a_weight_of_zero_leaves_a_source_out():
    for mixture, only in (((0, 1, 0), 1), ((1, 0, 0), 0), ((0, 0, 1), 2)):
        numbers = flat(ids([Numbered(10)] * 3, range(10), mixture=mixture))
        assert {number // ID_STRIDE for number in numbers} == {only}


def test_ids_of_many_large_sources_fit_32_bits_and_do_not_meet():
    sources = [Numbered(4, first=2**26 - 4) for _ in range(64)]
    numbers = flat(ids(sources, [0], problems_per_step=256))
    assert len(set(numbers)) == 256
    assert max(numbers) == 2**32 - 1


def test_far_steps_cost_nothing_and_are_exact():
    numbers = flat(ids([Numbered(10), Numbered(10)], range(10**12, 10**12 + 10), mixture=(3, 1), problems_per_step=4))
    assert Counter(number // ID_STRIDE for number in numbers) == {0: 30, 1: 10}


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "name 1 to 64"),
        ([Numbered(100)] * 65, {}, "65 sources"),
        ([Numbered(9)], {"mixture": (1, 2)}, "2 weights for 1 sources"),
        ([Numbered(9)] * 2, {"mixture": (1, -1)}, "not negative"),
        ([Numbered(9)] * 2, {"mixture": (1, float("nan"))}, "finite"),
        ([Numbered(9)] * 2, {"mixture": (0, 0)}, "not all zero"),
        ([Numbered(9)], {"problems_per_step": 0}, "at least 1"),
        ([Numbered(9)], {"seed": -1}, "at least 0"),
        ([Numbered(3, name="tiny")], {}, "needs 4 problems of tiny, which has 3; lower train.problems_per_step"),
        ([Numbered(100), Numbered(1)], {"mixture": (1, 1)}, "needs 2 problems of numbered, which has 1"),
        ([Numbered(9, first=2**26)], {}, "ids must be 0 to 67108863"),
    ],
)
def test_what_does_not_fit_names_the_fix(sources, options, message):
    with pytest.raises(ValueError, match=message):
        ids(sources, [0], **options)


def test_extra_problems_follow_on_the_steps_own_and_change_none_of_them():
    sources = [Numbered(100), Numbered(60)]
    plain = make_batches(sources, mixture=(), problems_per_step=4, seed=7)
    more = make_batches(sources, mixture=(), problems_per_step=4, seed=7, extra=6)
    for step in (0, 3, 10**9):
        problems = more(step)
        assert problems[:4] == plain(step) and 4 < len(problems) <= 10
        assert len({problem.id for problem in problems}) == len(problems)
        assert more(step) == problems


def test_the_first_extra_problems_never_change():
    batch = make_batches([Numbered(10)], mixture=(), problems_per_step=3, seed=7, extra=4)
    assert [[problem.id for problem in batch(step)[3:]] for step in range(3)] == [[5, 1], [9, 7], [0, 9]]


def test_extra_problems_go_through_epochs_of_their_own():
    batch = make_batches([Numbered(40)], mixture=(), problems_per_step=1, seed=0, extra=5)
    numbers = flat([[problem.id for problem in batch(step)[1:]] for step in range(8)])
    own = flat([[problem.id for problem in batch(step)[:1]] for step in range(8)])
    assert len(set(numbers)) == len(numbers) >= 40 - 8  # what a step has already is left out
    assert set(numbers) | set(own) == set(range(40))


def test_a_small_source_has_few_extra_problems():
    batch = make_batches([Numbered(5)], mixture=(), problems_per_step=4, seed=0, extra=50)
    assert [sorted(problem.id for problem in batch(step)) for step in (0, 5)] == [list(range(5))] * 2
