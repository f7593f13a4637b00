"""The static sizes of sampling."""

from functools import partial

from igrpo_jax.sampling.programs import Pool, capacities, make_pool


def test_capacities_grow_to_the_size():
    assert capacities(1) == [1]
    assert capacities(64) == [64]
    assert capacities(65) == [64, 65]
    assert capacities(1000) == [128, 256, 512, 1000]
    assert capacities(10, first=3) == [3, 4, 8, 10]


def test_a_pool_holds_all_problems_or_its_rows():
    make = partial(make_pool, prompts=(9, 5, 9), max_completion_length=70)
    whole = make(rows=0, problems=5, groups=(4, 8), shards=2)
    assert whole == Pool(slots=12, lanes=4, prefill=(2, 12), prompts=(5, 9), completions=(64, 70), tails=(4, 6))
    assert make(rows=24, problems=5, groups=(4, 8), shards=2) == whole
    few = make(rows=18, problems=5, groups=(4, 8), shards=2)
    assert make(rows=0, problems=5, groups=(4, 8), shards=2, prompts=(500, 300)).prefill == (2, 4)
    uneven = make(rows=0, problems=5, groups=(3, 5), shards=2)
    assert (uneven.slots, uneven.lanes) == (6, 5)
    assert (make(rows=0, problems=5, groups=(6, 4), shards=2).lanes, whole.tokens) == (6, 12 * (9 + 4 * 70))
    assert few == Pool(slots=36, lanes=1, prefill=(2, 36), prompts=(5, 9), completions=(64, 70), tails=(10, 18))
    assert make(rows=1, problems=1, groups=(4,), shards=2).tails == ()
