"""Intervals against hand calculation, enumeration of all resamples, and simulated studies whose truth is known."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from igrpo_jax.study.intervals import Interval, interval, verdict

T2, T1 = 4.302652729911275, 12.706204736432095
"""Student's t for 95 %, two and one degree of freedom, from a printed table and more digits of it."""


def test_over_seeds_alone_it_is_students():
    found = interval([np.array([[0.5], [0.6], [0.7]])])
    half = T2 * 0.1 / math.sqrt(3)
    assert found == pytest.approx((0.6, 0.6 - half, 0.6 + half))
    two = interval([np.array([[1.0], [3.0]])])
    assert two == pytest.approx((2.0, 2.0 - T1, 2.0 + T1))


def test_one_seed_has_no_interval():
    assert interval([np.array([[0.0, 1.0, 1.0, 0.0]])]) == Interval(0.5, None, None)


def test_the_part_of_the_seeds_is_the_bootstraps_variance_made_unbiased():
    values = [0.31, 0.42, 0.35, 0.57]
    means = [np.mean(some) for some in itertools.product(values, repeat=4)]  # every resample there is
    unbiased = np.var(means) * 4 / 3
    found = interval([np.array(values)[:, None]])
    assert found.high - found.mean == pytest.approx(3.182446305284264 * math.sqrt(unbiased))


def test_seeds_and_problems_add_up_and_the_noise_of_cells_counts_once():
    values = [[1.0, 0.0, 1.0], [0.5, 0.5, 0.0]]
    mean = sum(map(sum, values)) / 6
    rows = [sum(row) / 3 for row in values]
    columns = [sum(column) / 2 for column in zip(*values, strict=True)]
    by_seed = sum((row - mean) ** 2 for row in rows) / 1 / 2
    by_problem = sum((column - mean) ** 2 for column in columns) / 2 / 3
    rest = sum((values[s][p] - rows[s] - columns[p] + mean) ** 2 for s in range(2) for p in range(3)) / 2 / 6
    variance = max(by_seed, by_seed + by_problem - rest)
    found = interval([np.array(values)])
    assert found.mean == pytest.approx(mean)
    degrees = max(1, variance**2 / (by_seed**2 / 1 + by_problem**2 / 2 + rest**2 / 2))
    assert degrees == 1
    assert found.high - found.mean == pytest.approx(T1 * math.sqrt(variance))


def test_each_set_counts_the_same():
    small, large = np.array([[1.0], [1.0]]), np.zeros((2, 100))
    assert interval([small, large]).mean == 0.5


def test_differences_of_the_same_problems_are_surer_than_two_means():
    random = np.random.default_rng(0)
    problems = random.normal(0.5, 0.3, 200)  # some are easy, some are hard
    one, other = (problems + random.normal(0, 0.05, (3, 200)) for _ in range(2))
    other = other + 0.02
    paired = interval([other - one])
    assert paired.low is not None and paired.low > 0
    assert interval([one]).high > interval([other]).low  # apart they overlap


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_truth_lies_within_about_as_often_as_is_said(seeds):
    random = np.random.default_rng(seeds)
    ours, percentiles, tries = 0, 0, 300
    for _ in range(tries):
        values = random.normal(0, 0.1, (seeds, 1)) + random.normal(0, 0.1, 40) + random.normal(0, 0.3, (seeds, 40))
        found = interval([values])
        ours += found.low <= 0 <= found.high
        means = values.mean(axis=1)
        resampled = bootstrap((means,), np.mean, method="percentile", n_resamples=199, rng=random)
        percentiles += resampled.confidence_interval.low <= 0 <= resampled.confidence_interval.high
    assert 0.9 <= ours / tries <= 0.99
    assert percentiles / tries < 0.89  # why there are no percentiles here


@pytest.mark.parametrize(
    ("metric", "bounds", "said"),
    [
        ("eval/mean/avg", (0.01, 0.05), "better"),
        ("eval/gsm8k/refined/maj@8", (-0.05, -0.01), "worse"),
        ("eval/mean/avg@0%", (0.01, 0.05), "better"),
        ("eval/mean/avg", (-0.01, 0.05), "not distinguishable"),
        ("eval/mean/avg", (0.0, 0.05), "not distinguishable"),
        ("eval/mean/avg", (0.05, 0.05), "not distinguishable"),
        ("cost/step_s", (0.01, 0.05), "worse"),
        ("cost/peak_gb", (-2.0, -1.0), "better"),
        ("cost/tokens_per_s", (1.0, 2.0), "better"),
        ("cost/trained_tokens", (-2.0, -2.0), "lower"),
        ("entropy@30%", (0.01, 0.05), "higher"),
        ("reward", (0.01, 0.05), "higher"),
        ("eval/mean/avg", (None, None), None),
    ],
)
def test_a_verdict_only_where_the_interval_allows_one(metric, bounds, said):
    low, high = bounds
    assert verdict(metric, Interval(0.0 if low is None else (low + high) / 2, low, high)) == said
