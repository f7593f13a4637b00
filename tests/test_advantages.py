"""Advantages and the choice of a draft, against literals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.advantages import group_advantages, overlong_penalty, select_draft


@pytest.fixture(params=["numpy", "jax", "jit"])
def advantages(request):
    """`group_advantages` of lists on every kind of array that it is called with."""

    def run(rewards, *, scale="group", baseline="group"):
        if request.param == "numpy":
            result = group_advantages(np.array(rewards), baseline=baseline, scale=scale)
            assert isinstance(result, np.ndarray)
            return result
        jitted = jax.jit(group_advantages, static_argnames=("baseline", "scale"))
        function = jitted if request.param == "jit" else group_advantages
        result = function(jnp.array(rewards, jnp.float32), baseline=baseline, scale=scale)
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
    assert (advantages([[0.1] * 6], scale="none") == 0).all()
    assert (advantages([[0.3]]) == 0).all()
    for baseline, scale in itertools.product(("group", "leave_one_out"), ("group", "batch", "none")):
        # The first one's mean, and the whole batch's, are not exactly its rewards.
        got = advantages([[0.1] * 6, [0.7] * 6, [0.0, 1.0] * 3], baseline=baseline, scale=scale)
        assert (got[:2] == 0).all() and (got[2] != 0).all()


def test_spread_by_rounding_alone_is_not_blown_up():
    rewards = np.array([[0.1 + 0.2, 0.3, 0.3, 0.3]])  # unequal: 0.30000000000000004
    got = group_advantages(rewards, baseline="group", scale="group")
    assert 0 < np.abs(got).max() < 1e-9


def test_shift_and_scale_of_rewards_do_not_matter(advantages):
    base = np.array([[0.0, 1.0, 0.25, 0.5], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(advantages(3 * base - 5), advantages(base), atol=1e-5)
    np.testing.assert_allclose(advantages(-base), -advantages(base), atol=1e-6)


def test_without_scaling_advantages_are_in_reward_units(advantages):
    np.testing.assert_array_equal(advantages([[0.0, 3.0, 6.0]], scale="none"), [[-3.0, 0.0, 3.0]])


TWO = [[0.0, 3.0, 6.0], [1.0, 0.0, 2.0]]


@pytest.mark.parametrize(
    ("baseline", "scale", "expected"),
    [
        # The others' means of [0, 3, 6] are 4.5, 3, 1.5; of [1, 0, 2] they are 1, 1.5, 0.5.
        ("leave_one_out", "none", [[-4.5, 0.0, 4.5], [0.0, -1.5, 1.5]]),
        ("group", "none", [[-3.0, 0.0, 3.0], [0.0, -1.0, 1.0]]),
        # All six have mean 2 and squares around it of 4, 1, 16, 1, 4, 0: variance 26 / 6, deviation 2.081666.
        ("group", "batch", [[-1.441153, 0.0, 1.441153], [0.0, -0.480384, 0.480384]]),
        ("leave_one_out", "batch", [[-2.161730, 0.0, 2.161730], [0.0, -0.720577, 0.720577]]),
        # Deviations of the groups: sqrt(6) and sqrt(2 / 3).
        ("group", "group", [[-1.224745, 0.0, 1.224745], [0.0, -1.224745, 1.224745]]),
        ("leave_one_out", "group", [[-1.837117, 0.0, 1.837117], [0.0, -1.837117, 1.837117]]),
    ],
)
def test_baselines_and_scales(advantages, baseline, scale, expected):
    np.testing.assert_allclose(advantages(TWO, baseline=baseline, scale=scale), expected, atol=3e-6)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_same_as_trl_but_for_the_kind_of_deviation(scale):
    """TRL's lines in numpy: a sample deviation (n - 1) and 1e-4 where ours is the population's and 1e-6."""
    rewards = np.random.default_rng(3).random((5, 4))
    flat = rewards.reshape(-1)
    std = {"group": np.repeat(rewards.std(axis=1, ddof=1), 4), "batch": np.full(20, flat.std(ddof=1))}
    theirs = (flat - np.repeat(rewards.mean(axis=1), 4)) / (std[scale] + 1e-4 if scale != "none" else 1.0)
    factor = {"group": np.sqrt(4 / 3), "batch": np.sqrt(20 / 19), "none": 1.0}[scale]
    ours = group_advantages(rewards, baseline="group", scale=scale).reshape(-1)
    np.testing.assert_allclose(ours, theirs * factor, rtol=2e-3)


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0.0), (16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20479, -4095 / 4096), (20480, -1)],
)
def test_soft_overlong_punishment_with_the_numbers_of_dapo(length, penalty):
    assert overlong_penalty(np.array([length]), limit=20480, buffer=4096) == pytest.approx(penalty, abs=1e-9)


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
