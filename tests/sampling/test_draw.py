"""Drawing: frequencies, support and log-probabilities under every truncation, against float64 and a sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from igrpo_jax.records.machine.compiles import counting_compiles
from igrpo_jax.sampling.draw import BLOCK, NO_TOKEN, Truncation, draw, row_keys, uniforms

TRUNCATIONS = [
    {},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 10_000},
    {"top_p": 0.9},
    {"top_p": 0.3},
    {"top_p": 1e-6},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 20, "top_p": 0.8},
    {"top_p": 0.9, "min_p": 0.1},
    {"top_k": 12, "top_p": 0.95, "min_p": 0.02},
]
SIZE = 2 * BLOCK + 44
ROWS = 2048

run = jax.jit(draw)


@jax.jit
def keyed(seed, step, stage, ids, position):
    rows = ids.shape[0]
    samples = jnp.broadcast_to(jnp.arange(32), (rows, 32))
    keys = row_keys(seed, step, jnp.full(rows, stage, jnp.int32), ids, samples)
    return uniforms(keys, jnp.broadcast_to(position, keys.shape))


def truncation(*, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    return Truncation(np.float32(temperature), np.int32(top_k), np.float32(top_p), np.float32(min_p))


def expected(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Probabilities in float64 by sorting, in transformers' order: temperature, top-k, top-p, min-p."""
    p = np.exp((np.float64(logits) - np.max(logits)) / temperature)
    if top_k:
        p[p < np.sort(p)[-min(top_k, len(p))]] = 0
    p /= p.sum()
    if top_p < 1:
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]
        p[p < p[order][before < top_p].min()] = 0
        p /= p.sum()
    p[p < min_p * p.max()] = 0
    return p / p.sum()


@pytest.fixture(scope="module")
def logits():
    values = np.random.default_rng(0).normal(0, 3, SIZE).astype(np.float32)
    values[[5, 100, SIZE - 1]] = -np.inf
    return values


def drawn(logits, uniform, **settings):
    """Draws from one distribution with every uniform number; always the one compiled shape."""
    padded = np.resize(np.asarray(uniform, np.float32), ROWS)
    tokens, logprobs = run(np.broadcast_to(logits, (ROWS, SIZE)), padded, truncation(**settings))
    return np.asarray(tokens)[: len(uniform)], np.asarray(logprobs)[: len(uniform)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("settings", TRUNCATIONS, ids=str)
def test_evenly_spaced_uniforms_give_the_exact_distribution(logits, settings, temperature):
    """n evenly spaced numbers hit a token of probability p at least np - 1 and at most np + 1 times."""
    p = expected(logits, temperature=temperature, **settings)
    tokens, logprobs = drawn(logits, (np.arange(ROWS) + 0.5) / ROWS, temperature=temperature, **settings)
    np.testing.assert_allclose(np.bincount(tokens, minlength=SIZE), ROWS * p, atol=1.01)
    np.testing.assert_allclose(logprobs, np.log(p[tokens]), atol=2e-5)
    assert (np.diff(tokens) >= 0).all()


@pytest.mark.parametrize("settings", TRUNCATIONS, ids=str)
def test_frequencies_of_keyed_draws_pass_a_chi_square_test(logits, settings):
    p = expected(logits, temperature=0.8, **settings)
    count = np.zeros(SIZE)
    for position in range(3):
        tokens, _ = drawn(logits, noise(ids=range(64), position=position).ravel(), temperature=0.8, **settings)
        count += np.bincount(tokens, minlength=SIZE)
    assert (count[p == 0] == 0).all()
    bins = np.where(count.sum() * p >= 5, np.arange(SIZE), SIZE)  # improbable tokens share the last bin
    observed, wanted = (np.bincount(bins, x, minlength=SIZE + 1) for x in (count, count.sum() * p))
    if (wanted > 0).sum() > 1:
        assert chisquare(observed[wanted > 0], wanted[wanted > 0]).pvalue > 1e-3


EDGES = [0.0, 1e-12, 2**-24, 0.5, 1 - 2**-12, 1 - 2**-24]


@pytest.mark.parametrize("settings", [*TRUNCATIONS, {"temperature": 0.05}], ids=str)
def test_a_token_without_probability_is_never_drawn(logits, settings):
    holes = logits.copy()
    holes[:3] = holes[250:270] = holes[-5:] = -np.inf  # at both ends, and over the edge of a block
    for values in (logits, holes, np.where(np.arange(SIZE) == 260, 0.0, -np.inf).astype(np.float32)):
        tokens, logprobs = drawn(values, EDGES, **settings)
        p = expected(values, **settings)
        assert (p[tokens] > 0).all()
        assert (tokens[0] == np.flatnonzero(p > 1e-30)[0]) or settings.get("temperature") == 0.05
        np.testing.assert_allclose(logprobs, np.log(p[tokens]), atol=2e-5)


def test_rounding_never_leads_past_the_last_token():
    """In some of these rows the sum inside a block comes out smaller than the block's part of the target."""
    rows = np.random.default_rng(4).normal(0, 4, (ROWS, SIZE)).astype(np.float32)
    for size in (SIZE, SIZE - 20):
        rows[:, size:] = -np.inf
        tokens, logprobs = run(rows, np.full(ROWS, 1 - 2**-24, np.float32), truncation())
        assert np.max(tokens) < size
        assert np.isfinite(logprobs).all()


@pytest.mark.parametrize("size", [1, BLOCK, 2 * BLOCK + 1])
def test_any_vocabulary_size(size):
    uniform = np.array([0.0, 0.25, 0.5, 0.75, 1 - 2**-24], np.float32)
    tokens, logprobs = run(np.zeros((5, size), np.float32), uniform, truncation())
    np.testing.assert_array_equal(tokens, np.floor(uniform.astype(np.float64) * size))
    np.testing.assert_allclose(logprobs, -np.log(size), atol=1e-6)


@pytest.mark.parametrize("settings", [*TRUNCATIONS, {"temperature": 0.0}], ids=str)
def test_logits_that_are_no_distribution_draw_no_token(logits, settings):
    """Wherever the NaN or the infinity stands, and without an effect on the other rows."""
    rows = np.broadcast_to(logits, (ROWS, SIZE)).copy()
    for row, value in enumerate([np.nan, -np.nan, np.inf]):
        for column, place in enumerate([0, 5, BLOCK, SIZE - 1]):
            rows[4 * row + column, place] = value
    rows[12], rows[13], rows[14] = np.nan, -np.inf, np.inf
    rows[15, [3, 4]] = np.inf, np.nan
    uniform = np.full(ROWS, 0.3, np.float32)
    tokens, logprobs = map(np.asarray, run(rows, uniform, truncation(**settings)))
    assert (tokens[:16] == NO_TOKEN).all() and np.isnan(logprobs[:16]).all()
    token, logprob = drawn(logits, uniform[:1], **settings)
    assert (tokens[16:] == token).all() and (logprobs[16:] == logprob).all() and token[0] >= 0


def test_greedy_takes_the_first_of_the_best_whatever_else_is_set(logits):
    tied = logits.copy()
    tied[[7, 200, 280]] = tied.max() + 1
    tokens, logprobs = drawn(tied, EDGES, temperature=0.0, top_k=2, top_p=0.1)
    assert (tokens == 7).all()
    np.testing.assert_allclose(logprobs, np.log(expected(tied)[7]), atol=1e-5)


def test_ties_at_a_threshold_are_all_kept():
    logits = np.full(SIZE, -np.inf, np.float32)
    logits[[3, 90, 91, 255, 256, 299]] = np.log([0.1, 0.2, 0.2, 0.1, 0.2, 0.2])
    for settings in ({"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.9}):
        tokens, logprobs = drawn(logits, [0.1, 0.3, 0.6, 0.9], **settings)
        np.testing.assert_array_equal(tokens, [90, 91, 256, 299])
        np.testing.assert_allclose(logprobs, np.log(0.25), atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 150, 299, 300])
def test_top_k_keeps_exactly_k(k):
    """Neighbors in float32 are told apart: the threshold is found bit by bit, not to a tolerance."""
    steps = np.arange(SIZE, dtype=np.int32)
    logits = np.random.default_rng(1).permutation((np.float32(-4).view(np.int32) + 8 * steps).view(np.float32))
    weights = np.unique(np.exp(logits - logits.max()).astype(np.float32))
    assert len(weights) == SIZE
    tokens, _ = drawn(logits, (np.arange(ROWS) + 0.5) / ROWS, top_k=k)
    np.testing.assert_array_equal(np.unique(tokens), np.sort(np.argsort(-logits)[:k]))


SHAPES = ["peaked", "wide", "flat", "tied", "equal", "one", "masked"]


@pytest.fixture(scope="module")
def shapes():
    """Distributions over 33 blocks and a short one, whose thresholds lie anywhere from the first token to the last."""
    rng, size = np.random.default_rng(2), 33 * BLOCK + 5
    wide = rng.normal(0, 3, size)
    one, masked = np.full(size, -np.inf), np.where(rng.random(size) < 0.5, wide, -np.inf)
    one[-2] = 1.5
    flat, tied = rng.normal(0, 0.1, size), np.round(rng.normal(0, 2, size))
    peaked = -1.2 * np.log(1 + rng.permutation(size))
    return np.stack([peaked, wide, flat, tied, np.zeros(size), one, masked]).astype(np.float32)


BOUNDS = [
    {},
    {"top_p": 0.95},
    {"top_p": 0.3},
    {"top_p": 1e-6},
    {"top_p": 0.999},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 1500},
    {"top_k": 33 * BLOCK + 4},
    {"top_k": 1500, "top_p": 0.95},
    {"top_k": 10_000, "top_p": 0.8, "min_p": 0.02},
    {"top_k": 50, "top_p": 0.9, "min_p": 0.1},
]


@pytest.mark.parametrize("settings", BOUNDS, ids=str)
def test_the_kept_set_is_the_definitions_to_the_token(shapes, settings):
    """The lightest kept token can be drawn, and has the probability that it has when no lighter one is kept."""
    p = np.stack([expected(row, **settings) for row in shapes])
    places = np.arange(len(p)), np.where(p > 0, p, np.inf).argmin(-1)
    uniform = (np.cumsum(p, axis=-1) - p / 2)[places].astype(np.float32)
    enough = p[places] > 2e-7  # float32 numbers reach tokens as improbable as that one by one
    assert enough.all() or not settings.get("top_p", 1) < 0.99
    tokens, logprobs = run(shapes, uniform, truncation(**settings))
    for name, token, lightest in zip(np.array(SHAPES)[enough], tokens[enough], places[1][enough], strict=True):
        assert int(token) == lightest, name
    np.testing.assert_allclose(logprobs, np.log(p[places[0], tokens]), atol=3e-6)


def test_rows_are_drawn_apart_and_keep_their_shape(logits):
    rows = np.stack([logits, np.roll(logits, 9), -np.where(np.isinf(logits), 0, logits)])[None].repeat(2, 0)
    uniform = np.array([[0.1, 0.5, 0.9], [0.95, 0.3, 0.2]], np.float32)
    tokens, logprobs = run(rows, uniform, truncation(top_p=0.9))
    assert (tokens.shape, tokens.dtype, logprobs.shape, logprobs.dtype) == ((2, 3), jnp.int32, (2, 3), jnp.float32)
    for place in np.ndindex(2, 3):
        token, logprob = drawn(rows[place], uniform[place][None], top_p=0.9)
        assert int(tokens[place]) == token[0]
        assert float(logprobs[place]) == pytest.approx(logprob[0], abs=1e-6)


def test_another_truncation_compiles_nothing(logits):
    drawn(logits, EDGES)
    with counting_compiles() as compiles:
        for settings in (*TRUNCATIONS, {"temperature": 0.0}, {"temperature": 2.0}):
            drawn(logits, EDGES, **settings)
    assert compiles.count == 0


def noise(*, seed=0, step=0, stage=1, ids=(5,), position=0):
    """Numbers [problems, 32 samples]; always the one compiled shape."""
    padded = jnp.array([*ids, *range(1000, 1064)][:64], jnp.uint32)
    return np.asarray(keyed(jax.random.key(seed), step, stage, padded, position), np.float64)[: len(ids)]


def test_every_part_of_the_identity_changes_the_noise():
    changes = [
        {}, {"seed": 1}, {"step": 1}, {"stage": 2}, {"ids": (6,)}, {"ids": (2**32 - 1,)}, {"position": 1},
        {"step": 2, "stage": 0}, {"step": 5, "ids": (0,)}, {"stage": 0, "position": 1},
    ]  # fmt: skip
    assert len(np.unique([noise(**change) for change in changes])) == 32 * len(changes)


def test_the_same_identity_has_the_same_noise_wherever_it_stands():
    whole = noise(ids=(9, 5, 2**32 - 1, 0), position=4)
    np.testing.assert_array_equal(noise(ids=(0, 7, 5), position=4)[[0, 2]], whole[[3, 1]])
    problems = jnp.array([2**32 - 1, 5], jnp.uint32)
    samples = jnp.array([[0, 1, 2], [0, 1, 2]])
    keys = row_keys(jax.random.key(0), jnp.int32(0), jnp.array([1, 1]), problems, samples)
    np.testing.assert_array_equal(uniforms(keys, jnp.full((2, 3), 4)), whole[[2, 1], :3])
    mixed = uniforms(keys, jnp.array([[4, 0, 4], [0, 4, 0]]))
    np.testing.assert_array_equal(mixed[[0, 0, 1], [0, 2, 1]], whole[[2, 2, 1], [0, 2, 1]])
    assert not np.isin(mixed[[0, 1, 1], [1, 0, 2]], whole).any()


def test_uniforms_lie_strictly_inside_the_unit_interval_and_are_spread_evenly():
    """A 0 would draw the vocabulary's first token, however improbable: once in 2**23 tokens."""
    draws = noise(ids=range(64)).ravel()
    np.testing.assert_array_equal(draws * 2**24 % 2, 1)  # midpoints of 2**23 equal intervals
    assert chisquare(np.bincount((draws * 16).astype(int), minlength=16)).pvalue > 1e-3
