"""Advantages and the choice of a draft, against literals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.advantages import group_advantages, select_draft


@pytest.fixture(params=["numpy", "jax", "jit"])
def advantages(request):
    """`group_advantages` of lists on every kind of array that it is called with."""

    def run(rewards, *, scale=True):
        if request.param == "numpy":
            result = group_advantages(np.array(rewards), scale=scale)
            assert isinstance(result, np.ndarray)
            return result
        function = jax.jit(group_advantages, static_argnames="scale") if request.param == "jit" else group_advantages
        result = function(jnp.array(rewards, jnp.float32), scale=scale)
        assert isinstance(result, jax.Array)
        return np.asarray(result)

    return run


def test_population_standard_deviation(advantages):
    # [0, 3, 6]: mean 3, population std sqrt(6) (the sample std would be 3).
    got = advantages([[0.0, 3.0, 6.0], [1.0, 0.0, 1.0]])
    np.testing.assert_allclose(got, [[-1.2247, 0.0, 1.2247], [0.7071, -1.4142, 0.7071]], atol=1e-4)


def test_groups_are_independent_and_sum_to_zero(advantages):
    both = advantages([[0.0, 1.0, 1.0, 5.0], [7.0, 0.5, -2.0, 0.25]])
    np.testing.assert_allclose(both.sum(1), 0.0, atol=1e-5)
    np.testing.assert_allclose(both[1:], advantages([[7.0, 0.5, -2.0, 0.25]]), atol=1e-6)


def test_a_group_without_spread_is_exactly_zero(advantages):
    # Six times 0.1 has a mean that is not 0.1, so a standard deviation computed from it is not 0.
    assert (advantages([[0.1] * 6, [0.7] * 6, [-1e8] * 6]) == 0).all()
    assert (advantages([[0.1] * 6], scale=False) == 0).all()
    assert (advantages([[0.3]]) == 0).all()


def test_spread_by_rounding_alone_is_not_blown_up():
    rewards = np.array([[0.1 + 0.2, 0.3, 0.3, 0.3]])  # unequal: 0.30000000000000004
    got = group_advantages(rewards, scale=True)
    assert 0 < np.abs(got).max() < 1e-9


def test_shift_and_scale_of_rewards_do_not_matter(advantages):
    base = np.array([[0.0, 1.0, 0.25, 0.5], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(advantages(3 * base - 5), advantages(base), atol=1e-5)
    np.testing.assert_allclose(advantages(-base), -advantages(base), atol=1e-6)


def test_without_scaling_advantages_are_in_reward_units(advantages):
    np.testing.assert_array_equal(advantages([[0.0, 3.0, 6.0]], scale=False), [[-3.0, 0.0, 3.0]])


REWARDS = np.array([[0.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0], [0.5, 0.0, 0.25, 0.75]])
LENGTHS = np.array([[9, 8, 4, 3], [5, 4, 4, 6], [1, 2, 3, 4]])
RIGHT = np.array([[False, True, True, False], [True, True, True, True], [True, False, True, False]])
NOISE = np.array([[0.99, 0.2, 0.1, 0.5], [0.1, 0.3, 0.2, 0.4], [0.9, 0.1, 0.2, 0.3]])


@pytest.mark.parametrize(
    ("select", "tie_break", "expected"),
    [
        ("best", "random", [1, 3, 3]),
        ("best", "first", [1, 0, 3]),
        ("best", "shortest", [2, 1, 3]),  # two drafts of 4 tokens: the first
        ("worst", "random", [0, 3, 1]),
        ("worst", "first", [0, 0, 1]),
        ("worst", "shortest", [3, 1, 1]),
        ("random", "random", [0, 3, 0]),
        ("random", "first", [0, 3, 0]),  # the draft is random whatever breaks ties
        ("random", "shortest", [0, 3, 0]),
        ("best", "longest", [1, 3, 3]),
        ("worst", "longest", [0, 3, 1]),
        ("wrong_first", "random", [0, 3, 3]),  # the wrong ones are 0 and 3, none (so any), and 1 and 3
        ("wrong_first", "first", [0, 0, 1]),
        ("wrong_first", "shortest", [3, 1, 1]),
        ("wrong_first", "longest", [0, 3, 3]),
    ],
)
def test_select_draft(select, tie_break, expected):
    got = select_draft(REWARDS, LENGTHS, RIGHT, NOISE, select=select, tie_break=tie_break)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("select", "tied"),
    [("best", [1, 2, 4]), ("worst", [0, 3]), ("random", [0, 1, 2, 3, 4]), ("wrong_first", [0, 3])],
)
def test_ties_are_broken_uniformly(select, tied):
    noise = np.random.default_rng(0).random((30_000, 5))
    rewards = np.broadcast_to([0.0, 1.0, 1.0, 0.0, 1.0], noise.shape)
    lengths, right = np.ones(noise.shape, int), rewards > 0
    got = select_draft(rewards, lengths, right, noise, select=select, tie_break="random")
    share = np.bincount(got, minlength=5) / len(noise)
    expected = np.isin(np.arange(5), tied) / len(tied)
    np.testing.assert_allclose(share, expected, atol=4 * 0.5 / np.sqrt(len(noise)))
    assert (share[expected == 0] == 0).all()


def test_infinite_rewards_are_selected_like_any_other():
    rewards = np.array([[-np.inf, 0.0], [-np.inf, -np.inf]])
    noise = np.array([[0.9, 0.1], [0.1, 0.9]])
    got = select_draft(rewards, np.ones((2, 2), int), np.zeros((2, 2), bool), noise, select="best", tie_break="random")
    np.testing.assert_array_equal(got, [1, 1])
