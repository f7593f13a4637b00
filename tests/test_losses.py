"""The loss against literals, closed forms, finite differences, and TRL's formulas written again in float64."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.config import AlgorithmConfig
from igrpo_jax.losses import LOSS_TYPES, igrpo_loss, kl_estimate, token_mask, token_weights
from igrpo_jax.types import Batch

pytestmark = pytest.mark.usefixtures("quick_compile")

GRPO = AlgorithmConfig()

value_and_grad = jax.jit(jax.value_and_grad(igrpo_loss, has_aux=True), static_argnums=2)


def evaluate(logprobs, batch, config):
    """Loss, metrics and gradient as numpy, from anything that numpy takes for float32 and int32 arrays."""
    batch = Batch(*(None if x is None else np.asarray(x, "float32") for x in batch))
    batch = batch._replace(lengths=batch.lengths.astype("int32"))
    (loss, metrics), grad = value_and_grad(np.asarray(logprobs, "float32"), batch, config)
    return float(loss), {k: float(v) for k, v in metrics.items()}, np.asarray(grad)


def one_token(ratio, advantage, config=GRPO):
    """Loss, metrics and gradient of a single token whose ratio is given."""
    batch = Batch([1], [advantage], np.zeros((1, 1)))
    loss, metrics, grad = evaluate(np.log([[ratio]]), batch, config)
    return loss, metrics, grad[0, 0]


def random_batch(seed, rows=5, size=7, **changes):
    """Log-probabilities whose ratios leave the clip range on both sides, and a batch around them."""
    random = np.random.default_rng(seed)
    draw = lambda spread: random.normal(-1.5, spread, (rows, size))
    logprobs = draw(0.3)
    lengths = np.array([size, 1, 3, size - 1, 4])[:rows]
    batch = Batch(lengths, random.normal(size=rows), logprobs + draw(0.4) + 1.5, draw(0.5))
    return logprobs, batch._replace(**changes)


@pytest.mark.parametrize(
    ("ratio", "advantage", "grad", "clipped"),
    [
        (1.1, 2.0, -2.2, None),
        (1.5, 2.0, -2.4, "high"),  # the gradient is kept, at the clipped weight
        (1.5, -2.0, 2.4, "high"),
        (0.5, 2.0, -1.6, "low"),
        (0.5, -2.0, 1.6, "low"),
        (0.5, 0.0, 0.0, None),
    ],
)
def test_cispo_clips_the_weight_of_the_log_probability(ratio, advantage, grad, clipped):
    loss, metrics, got = one_token(ratio, advantage, replace(GRPO, loss_type="cispo"))
    assert got == pytest.approx(grad, abs=1e-5)
    assert loss == pytest.approx(grad * np.log(ratio), abs=1e-5)  # of a weight that is a constant
    for side in ("low", "high"):
        assert metrics[f"clip_ratio/{side}_mean"] == (side == clipped)


@pytest.mark.parametrize(("ratio", "weight"), [(0.01, 0.01), (4.9, 4.9), (7.0, 5.0)])
def test_cispo_as_published_has_no_lower_clip(ratio, weight):
    """MiniMax-M1 has 1 + ε_high alone; TRL calls that number epsilon_high, and takes ScaleRL's 5."""
    config = replace(GRPO, loss_type="cispo", epsilon=1.0, epsilon_high=4.0)
    assert one_token(ratio, 1.0, config)[2] == pytest.approx(-weight)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "grad", "clipped"),
    [
        (1.1, 2.0, -2.2, -2.2, None),  # inside: -rA and its gradient -rA
        (0.9, -2.0, 1.8, 1.8, None),
        (1.5, 2.0, -2.4, 0.0, "high"),  # -1.2 A: going further up earns nothing
        (0.5, -2.0, 1.6, 0.0, "low"),  # -0.8 A: going further down earns nothing
        (0.5, 2.0, -1.0, -1.0, None),  # min(0.5 A, 0.8 A): the way back is open
        (1.5, -2.0, 3.0, 3.0, None),  # min(1.5 A, 1.2 A) is 1.5 A for A < 0; a max here never pushes it down
        (1.5, 0.0, 0.0, 0.0, None),
    ],
)
def test_clipped_surrogate(ratio, advantage, loss, grad, clipped):
    got_loss, metrics, got_grad = one_token(ratio, advantage)
    assert got_loss == pytest.approx(loss, abs=1e-5)
    assert got_grad == pytest.approx(grad, abs=1e-5)
    for side in ("low", "high"):
        assert metrics[f"clip_ratio/{side}_mean"] == (side == clipped)
    assert metrics["clip_ratio/region_mean"] == (clipped is not None)


def test_epsilon_high_moves_the_upper_edge_only():
    higher = replace(GRPO, epsilon_high=0.28)
    assert one_token(1.25, 1.0, higher)[0] == pytest.approx(-1.25)
    assert one_token(1.4, 1.0, higher)[0] == pytest.approx(-1.28)
    assert one_token(0.5, -1.0, higher)[0] == pytest.approx(0.8)
    assert one_token(0.75, -1.0, replace(GRPO, epsilon=0.3))[0] == pytest.approx(0.75)


# Ratios [2, 1] with A = 1 and [3, 1, .5] with A = -2; gains [1.2, 1] and [-6, -2, -1.6].
RATIOS = np.array([[2.0, 1.0, 9.0], [3.0, 1.0, 0.5]])
LITERAL = Batch([2, 3], [1.0, -2.0], np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("loss_type", "loss"),
    [
        ("grpo", -(1.1 - 3.2) / 2),
        ("dapo", -(2.2 - 9.6) / 5),
        ("dr_grpo", -(2.2 - 9.6) / 6),
        # One ratio a row: sqrt(2) is clipped to 1.2; (1.5)^(1/3) = 1.1447 is inside for A < 0.
        ("gspo", -(1.2 - 2 * 1.5 ** (1 / 3)) / 2),
        # Weights 1.2, 1 and 1.2, 1, 0.8, times A log r: (1.2 log 2 - 2.4 log 3 + 1.6 log 2) / 5.
        ("cispo", 0.1391713),
    ],
)
def test_normalization_of_each_loss_type(loss_type, loss):
    assert evaluate(np.log(RATIOS), LITERAL, replace(GRPO, loss_type=loss_type))[0] == pytest.approx(loss, abs=1e-5)


def test_unknown_loss_type():
    with pytest.raises(ValueError, match="loss_type 'ppo' is unknown; use one of grpo, dr_grpo, dapo, gspo, cispo"):
        token_weights(jnp.array([1]), size=2, loss_type="ppo")


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_token_weights_sum_to_one_over_rows_that_exist(loss_type):
    lengths = jnp.array([[3, 1], [4, 0]])  # the last row only fills up
    weights = np.asarray(token_weights(lengths, size=4, loss_type=loss_type))
    assert weights.sum() == pytest.approx(8 / 12 if loss_type == "dr_grpo" else 1.0)
    np.testing.assert_array_equal(weights > 0, token_mask(lengths, 4))
    expected = {"dapo": 1 / 8, "cispo": 1 / 8, "dr_grpo": 1 / 12}.get(loss_type, 1 / 9)
    np.testing.assert_allclose(weights[0, 0], [expected] * 3 + [0.0], rtol=1e-6)
    assert (token_weights(jnp.array([0, 0]), size=2, loss_type=loss_type) == 0).all()


@pytest.mark.parametrize(
    ("loss_type", "share"), [("grpo", 1 / 9), ("gspo", 1 / 9), ("dr_grpo", 1 / 12), ("dapo", 1 / 4), ("cispo", 1 / 4)]
)
def test_masked_completions_keep_their_share_but_where_tokens_are_counted(loss_type, share):
    """TRL: `mask` is zero at truncated ones, `.mean()` and the batch size count them, `num_items_in_batch` does not."""
    weights = token_weights(jnp.array([3, 1, 0]), size=4, loss_type=loss_type, count=3)
    np.testing.assert_allclose(weights[0], [share, share, share, 0.0], rtol=1e-6)
    assert (weights[2] == 0).all()


def test_mask_holds_the_end_token():
    np.testing.assert_array_equal(
        token_mask(jnp.array([[0, 1], [2, 3]]), 3),
        [[[False] * 3, [True, False, False]], [[True, True, False], [True] * 3]],
    )


@pytest.mark.parametrize(
    ("p", "ref", "value"), [(0.2, 0.4, 2 - np.log(2) - 1), (0.5, 0.25, 0.5 + np.log(2) - 1), (0.3, 0.3, 0)]
)
def test_k3_value_and_gradient(p, ref, value):
    config = replace(GRPO, beta=0.5)
    batch = Batch([1], [0.0], None, np.log([[ref]]))
    loss, metrics, grad = evaluate(np.log([[p]]), batch, config)
    assert metrics["kl"] == pytest.approx(value, abs=1e-6)
    assert loss == pytest.approx(0.5 * value, abs=1e-6)
    assert grad[0, 0] == pytest.approx(0.5 * (1 - ref / p), abs=1e-6)  # d k3 / d log p = 1 - ref/p


def test_k3_is_exact_near_zero_and_never_negative():
    """exp(x) - x - 1 would round to -6e-8 there."""
    x = np.concatenate([np.linspace(-8, 8, 401), np.linspace(-0.02, 0.02, 401)]).astype("float32")

    @jax.jit
    @jax.vmap
    def k3(log_rho):
        batch = Batch(jnp.ones(1, int), jnp.zeros(1), ref_logprobs=log_rho[None, None])
        return igrpo_loss(jnp.zeros((1, 1)), batch, replace(GRPO, beta=1.0))[1]["kl"]

    got = np.asarray(k3(x))
    assert (got >= 0).all()
    np.testing.assert_allclose(got, np.expm1(x.astype("float64")) - x, rtol=5e-5, atol=4e-9)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimators(estimator):
    # p = 0.2 and 0.5 under references 0.4 and 0.25: log ρ is log 2 and -log 2.
    values = {"k1": [-0.693147, 0.693147], "k2": [0.240227, 0.240227], "k3": [0.306853, 0.193147]}[estimator]
    log_rho = np.log(np.array([2.0, 0.5]))
    np.testing.assert_allclose(kl_estimate(log_rho, estimator), values, atol=1e-6)
    np.testing.assert_allclose(kl_estimate(jnp.array(log_rho), estimator), values, atol=1e-6)
    config = replace(GRPO, beta=0.5, kl_estimator=estimator)
    loss, metrics, grad = evaluate(np.log([[0.2], [0.5]]), Batch([1, 1], [0, 0], None, np.log([[0.4], [0.25]])), config)
    assert metrics["kl"] == pytest.approx(np.mean(values), abs=1e-6)
    assert loss == pytest.approx(0.5 * np.mean(values), abs=1e-6)
    slopes = {"k1": [1, 1], "k2": [-0.693147, 0.693147], "k3": [1 - 2, 1 - 0.5]}[estimator]  # with respect to log p
    np.testing.assert_allclose(grad[:, 0], 0.25 * np.array(slopes), atol=1e-6)


def test_what_the_expected_gradient_of_each_estimator_is():
    """Over all four tokens that a softmax may draw: why k1 belongs in the reward, and k2 in the loss."""
    logits, reference = jnp.array([0.3, -1.0, 0.8, 0.1]), jax.nn.log_softmax(jnp.array([-0.5, 0.7, 0.2, 0.4]))
    score = np.asarray(jax.jacobian(jax.nn.log_softmax)(logits))
    p, log_p = np.asarray(jax.nn.softmax(logits)), np.asarray(jax.nn.log_softmax(logits))

    def kl(x):
        return (jax.nn.softmax(x) * (jax.nn.log_softmax(x) - reference)).sum()

    truth = np.asarray(jax.grad(kl)(logits))
    log_rho = np.asarray(reference) - log_p
    in_loss = {
        k: (p * np.asarray(jax.vmap(jax.grad(lambda r, k=k: -kl_estimate(r[None], k)[0]))(jnp.array(log_rho)))) @ score
        for k in ("k1", "k2", "k3")
    }
    in_reward = {k: (p * kl_estimate(log_rho, k)) @ score for k in ("k1", "k2", "k3")}
    np.testing.assert_allclose(in_loss["k1"], 0, atol=1e-6)
    np.testing.assert_allclose(in_loss["k2"], truth, atol=1e-6)
    np.testing.assert_allclose(in_reward["k1"], truth, atol=1e-6)
    other_way = np.asarray(jax.grad(lambda x: -(jnp.exp(reference) * jax.nn.log_softmax(x)).sum())(logits))
    np.testing.assert_allclose(in_loss["k3"], other_way, atol=1e-6)  # KL(π_ref ‖ π)
    np.testing.assert_allclose(in_reward["k3"], truth - other_way, atol=1e-6)
    assert np.abs(other_way - truth).max() > 0.02 and np.abs(in_reward["k2"] - truth).max() > 0.02


def test_a_penalty_in_the_reward_is_none_of_the_loss():
    config = replace(GRPO, beta=0.5, kl_in="reward", kl_estimator="k1")
    loss, metrics, _ = evaluate(np.log(RATIOS), LITERAL, config)
    assert loss == evaluate(np.log(RATIOS), LITERAL, GRPO)[0] and metrics["kl"] == 0


def test_kl_without_a_reference_is_an_error():
    with pytest.raises(ValueError, match="beta > 0 needs ref_logprobs"):
        igrpo_loss(jnp.zeros((1, 1)), Batch(jnp.array([1]), jnp.array([1.0])), replace(GRPO, beta=0.1))


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize("given", [True, False], ids=["old logprobs", "no old logprobs"])
def test_on_policy_the_gradient_is_the_policy_gradient(loss_type, given):
    logprobs, batch = random_batch(0)
    batch = batch._replace(old_logprobs=logprobs if given else None)
    loss, metrics, grad = evaluate(logprobs, batch, replace(GRPO, loss_type=loss_type))
    weights = np.asarray(token_weights(jnp.array(batch.lengths), size=7, loss_type=loss_type))
    expected = -weights * batch.advantages[:, None]
    np.testing.assert_allclose(grad, expected, atol=1e-7)
    if loss_type == "cispo":
        expected = expected * logprobs
    assert loss == pytest.approx(expected.sum(), abs=1e-6)
    assert metrics["clip_ratio/region_mean"] == 0


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_end_token_counts(loss_type):
    logprobs, batch = random_batch(1)
    _, _, grad = evaluate(logprobs, batch._replace(old_logprobs=None), replace(GRPO, loss_type=loss_type))
    last = np.take_along_axis(grad, batch.lengths[:, None] - 1, 1)
    assert (last != 0).all()
    assert (grad[~np.asarray(token_mask(jnp.array(batch.lengths), 7))] == 0).all()


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_garbage_past_the_length_has_no_effect(loss_type, garbage):
    config = replace(GRPO, loss_type=loss_type, beta=0.1)
    logprobs, batch = random_batch(2)
    clean = evaluate(logprobs, batch, config)
    beyond = ~np.asarray(token_mask(jnp.array(batch.lengths), 7))
    dirty = [np.where(beyond, garbage, x) for x in (logprobs, batch.old_logprobs, batch.ref_logprobs)]
    got = evaluate(dirty[0], batch._replace(old_logprobs=dirty[1], ref_logprobs=dirty[2]), config)
    assert got[:2] == clean[:2]
    np.testing.assert_array_equal(got[2], clean[2])


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_more_padding_changes_only_dr_grpo_whose_divisor_is_the_padded_length(loss_type):
    config = replace(GRPO, loss_type=loss_type, beta=0.1)
    logprobs, batch = random_batch(3)
    pad = partial(np.pad, pad_width=((0, 0), (0, 7)), constant_values=-3.0)
    loss, _, grad = evaluate(logprobs, batch, config)
    wide = batch._replace(old_logprobs=pad(batch.old_logprobs), ref_logprobs=pad(batch.ref_logprobs))
    wide_loss, _, wide_grad = evaluate(pad(logprobs), wide, config)
    share = 0.5 if loss_type == "dr_grpo" else 1.0
    assert wide_loss == pytest.approx(share * loss, rel=1e-5)
    np.testing.assert_allclose(wide_grad[:, :7], share * grad, atol=1e-7)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_rows_may_stand_in_any_order_and_shape(loss_type):
    config = replace(GRPO, loss_type=loss_type, beta=0.1)
    logprobs, batch = random_batch(4, rows=4)
    loss, metrics, grad = evaluate(logprobs, batch, config)
    order = np.array([2, 0, 3, 1])
    square = lambda x: None if x is None else x[order].reshape(2, 2, *x.shape[1:])
    moved_loss, moved_metrics, moved_grad = evaluate(square(logprobs), Batch(*map(square, batch)), config)
    assert moved_loss == pytest.approx(loss, abs=1e-6)
    assert moved_metrics == pytest.approx(metrics, abs=1e-6)
    np.testing.assert_allclose(moved_grad, square(grad), atol=1e-7)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_micro_batches_add_up(loss_type):
    """Weights from the whole batch; a row of length 0 weighs nothing and may hold anything."""
    config = replace(GRPO, loss_type=loss_type, beta=0.1)
    logprobs, batch = random_batch(5)
    loss, metrics, grad = evaluate(logprobs, batch, config)
    fill = lambda x, value: np.concatenate([x, np.full_like(x[:1], value)])
    lengths = fill(batch.lengths, 0)
    weights = token_weights(jnp.array(lengths), size=7, loss_type=loss_type)
    batch = Batch(lengths, *(fill(x, np.nan if x.ndim == 2 else 4) for x in batch[1:4]), np.asarray(weights))
    parts = [evaluate(fill(logprobs, -2)[i : i + 2], Batch(*(x[i : i + 2] for x in batch)), config) for i in (0, 2, 4)]
    assert sum(p[0] for p in parts) == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(np.concatenate([p[2] for p in parts])[:5], grad, atol=1e-7)
    for name in metrics:
        assert sum(p[1][name] for p in parts) == pytest.approx(metrics[name], abs=1e-6)


def trl_loss(logprobs, batch: Batch, config: AlgorithmConfig, there=None) -> float:
    """TRL's documented formulas in float64, row by row; what is detached is taken at `there`."""
    total, tokens = 0.0, sum(batch.lengths)
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    for j, length in enumerate(batch.lengths):
        new, old, ref = (x[j, :length] for x in (logprobs, batch.old_logprobs, batch.ref_logprobs))
        log_ratio = np.full(length, (new - old).mean()) if config.loss_type == "gspo" else new - old
        ratio = np.exp(log_ratio)
        limited = np.minimum(np.maximum(ratio, 1 - config.epsilon), 1 + high)
        objective = np.minimum(ratio * batch.advantages[j], limited * batch.advantages[j])
        if config.loss_type == "cispo":
            detached = np.exp((logprobs if there is None else there)[j, :length] - old)
            objective = np.minimum(np.maximum(detached, 1 - config.epsilon), 1 + high) * batch.advantages[j] * new
        kl = np.exp(ref - new) - (ref - new) - 1
        divisor = {
            "grpo": len(batch.lengths) * length,
            "gspo": len(batch.lengths) * length,
            "dr_grpo": len(batch.lengths) * logprobs.shape[1],
            "dapo": tokens,
            "cispo": tokens,
        }[config.loss_type]
        total += -(objective - config.beta * kl).sum() / divisor
    return total


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("epsilon_high", [None, 0.28])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_value_equals_trl_and_gradient_equals_its_finite_differences(loss_type, epsilon_high, beta):
    config = AlgorithmConfig(loss_type=loss_type, epsilon_high=epsilon_high, beta=beta)
    for seed in range(10, 14):
        logprobs, batch = random_batch(seed)
        loss, metrics, grad = evaluate(logprobs, batch, config)
        assert loss == pytest.approx(trl_loss(logprobs, batch, config), abs=2e-6)
        if loss_type != "gspo":
            assert min(metrics["clip_ratio/low_mean"], metrics["clip_ratio/high_mean"]) > 0
        differences, step = np.zeros_like(logprobs), 1e-6
        for place in np.ndindex(logprobs.shape):
            aside = np.zeros_like(logprobs)
            aside[place] = step
            ends = [trl_loss(logprobs + sign * aside, batch, config, logprobs) for sign in (1, -1)]
            differences[place] = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(grad, differences, atol=2e-6)
