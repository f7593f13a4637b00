"""The update: the same step on every mesh and in any portions, and the right one."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.compiles import counting_compiles
from igrpo_jax.config import AlgorithmConfig, Config, OptimConfig, TrainConfig
from igrpo_jax.learner import Completions, Learner, TrainState, learning_rate, micro_batches
from igrpo_jax.logprobs import completion_logprobs
from igrpo_jax.losses import igrpo_loss
from igrpo_jax.types import Batch
from models import decoder

pytestmark = pytest.mark.usefixtures("quick_compile")

OPTIM = OptimConfig(adam_epsilon=1e-3, beta1=0.75, max_grad_norm=0.05, weight_decay=0.1)
CONFIG = Config(train=TrainConfig(logprob_chunk=4), optim=OPTIM)
RATE, TEMPERATURE = 0.002, 0.8


def completions(seed=0):
    """4 problems with 4 completions of up to 6 tokens; one group has no advantages."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 7, (4, 4)).astype(np.int32)
    advantages = random.normal(size=(4, 4)).astype(np.float32)
    advantages[2] = 0
    tokens = random.integers(3, 250, (4, 4, 6)).astype(np.int32)
    prompts = random.integers(3, 250, (4, 5)).astype(np.int32)
    sampled = random.normal(-3, 1, (4, 4, 6)).astype(np.float32)
    return Completions(prompts, np.array([5, 2, 4, 1], np.int32), tokens, Batch(lengths, advantages), sampled)


class Stepped(NamedTuple):
    state: TrainState
    metrics: dict[str, float]

    @property
    def gradient(self):
        """From first moments after one step from zero, which are the clipped gradient times 1 - beta1."""
        scale = max(1.0, self.metrics["grad_norm"] / OPTIM.max_grad_norm) / (1 - OPTIM.beta1)
        return jax.tree.map(lambda x: np.asarray(x) * scale, self.state.moments[1].mu)


class Updates:
    """A learner on a mesh and its first step from the tiny policy."""

    def __init__(self, layout, policy, config=CONFIG):
        self.layout, self.policy = layout, policy
        self.learner = Learner(decoder, layout, config, jax.eval_shape(lambda: policy), dtype="float32")

    def start(self):
        params = jax.device_put(jax.tree.map(jnp.copy, self.policy), self.learner.shardings.params)
        return self.learner.init(params)

    def cut(self, whole, rows=3):
        return micro_batches(whole, rows=rows, shards=self.layout.num_row_shards)

    def step(self, *terms, state=None, weights=None):
        state = self.start() if state is None else state
        with self.layout.active(), jax.transfer_guard("disallow"):
            state, metrics = self.learner.update(
                state, terms, weights=weights or (1.0,) * len(terms), lr=RATE, temperature=TEMPERATURE
            )
            metrics = jax.device_get(metrics)
        return Stepped(state, {name: float(x) for name, x in metrics.items()})


@pytest.fixture(scope="module")
def policy(make_policy):
    """With tied embeddings, whose gradient comes from both ends."""
    return make_policy(tied=True)


@pytest.fixture(scope="module")
def one(make_layout, policy):
    return Updates(make_layout("1x1"), policy)


@pytest.fixture(scope="module")
def stepped(one):
    return one.step(one.cut(completions()))


def close(a, b, tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=0, atol=tolerance)


def test_learning_rate():
    config = OptimConfig(learning_rate=2.0, warmup_ratio=0.2, final_lr_ratio=0.1)
    rates = [learning_rate(step, 20, config) for step in range(20)]
    np.testing.assert_allclose(rates[:5], [0.5, 1.0, 1.5, 2.0, 1.9827], atol=1e-4)
    np.testing.assert_allclose(rates[11], 2 * (0.1 + 0.9 * 0.5), atol=1e-9)  # half way down
    np.testing.assert_allclose(rates[-1], 0.2)
    assert (np.diff(rates[3:]) < 0).all()
    constant = replace(config, warmup_ratio=0.0, final_lr_ratio=1.0)
    assert [learning_rate(step, 3, constant) for step in range(3)] == [2.0] * 3
    assert learning_rate(0, 1, replace(config, warmup_ratio=1.0)) == 2.0


@pytest.mark.parametrize(
    ("rows", "shards", "shape"),
    [
        (4, 1, (4, 1, 4)),  # M, p, g
        (8, 1, (2, 2, 4)),
        (2, 1, (8, 1, 2)),
        (1, 8, (2, 8, 1)),
        (3, 1, (6, 3, 1)),  # 16 completions in threes: two are missing
        (6, 2, (2, 4, 2)),  # 8 halves of groups, at most 2 x 3 at a time
        (16, 1, (1, 4, 4)),
        (32, 4, (1, 4, 4)),  # room for more than there is
    ],
)
def test_micro_batches(rows, shards, shape):
    whole = completions()
    cut = micro_batches(whole, rows=rows, shards=shards)
    micro, prompts, group = shape
    assert cut.tokens.shape == (*shape, 6)
    assert cut.prompts.shape == (micro, prompts, 5)
    assert cut.prompt_lengths.shape == (micro, prompts)
    assert cut.batch.lengths.shape == cut.batch.advantages.shape == shape
    assert cut.sampled_logprobs.shape == (*shape, 6)
    assert cut.batch.old_logprobs is None
    # In order, every completion is there once with its own prompt; what fills up has length 0 and a prompt of length 1.
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), (cut.tokens, cut.batch.lengths, cut.batch.advantages))
    for got, want in zip(flat, (whole.tokens, whole.batch.lengths, whole.batch.advantages), strict=True):
        np.testing.assert_array_equal(got[:16], want.reshape(-1, *want.shape[2:]))
        assert (got[16:] == 0).all()
    np.testing.assert_array_equal(np.repeat(cut.prompts.reshape(-1, 5), group, 0)[:16], np.repeat(whole.prompts, 4, 0))
    lengths = np.repeat(cut.prompt_lengths.ravel(), group)
    np.testing.assert_array_equal(lengths[:16], np.repeat(whole.prompt_lengths, 4))
    assert (lengths[16:] == 1).all()


def test_a_step_is_adamw_on_the_gradient_of_the_loss(policy, stepped):
    """Moments, clipping, bias correction and decay written out in numpy, on a gradient without micro-batches.

    The step that it is compared with took six micro-batches of three completions, the last one not full.
    """
    whole = jax.tree.map(jnp.asarray, completions())

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def grad(policy):
        scored = completion_logprobs(
            decoder,
            policy,
            whole.prompts,
            whole.prompt_lengths,
            whole.tokens,
            temperature=jnp.float32(TEMPERATURE),
            chunk=64,
        )
        return igrpo_loss(scored.logprobs, whole.batch, CONFIG.algorithm)[0], scored

    (loss, scored), grads = grad(policy)
    grads = jax.tree.map(lambda x: np.asarray(x, np.float64), grads)
    norm = np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(grads)))
    assert norm > 2 * OPTIM.max_grad_norm
    clipped = jax.tree.map(lambda x: x * OPTIM.max_grad_norm / norm, grads)
    close(stepped.state.moments[1].mu, jax.tree.map(lambda g: g * (1 - OPTIM.beta1), clipped), 1e-7)
    expected = jax.tree.map(
        lambda p, g: np.asarray(p) - RATE * (g / (np.abs(g) + OPTIM.adam_epsilon) + OPTIM.weight_decay * np.asarray(p)),
        policy,
        clipped,
    )
    close(stepped.state.params, expected, 2e-6)

    own = np.arange(6) < completions().batch.lengths[..., None]
    gap = np.abs(scored.logprobs - completions().sampled_logprobs)[own]
    assert stepped.metrics == pytest.approx(
        {
            "loss": float(loss),
            "grad_norm": norm,
            "entropy": float(np.asarray(scored.entropy)[own].mean()),
            "sampling/logp_difference/mean": gap.mean(),
            "sampling/logp_difference/max": gap.max(),
            "kl": 0.0,
            "clip_ratio/low_mean": 0.0,
            "clip_ratio/high_mean": 0.0,
            "clip_ratio/region_mean": 0.0,
        },
        rel=1e-4,
        abs=1e-6,
    )


def test_completions_without_advantage_and_tokens_past_the_length_contribute_nothing(one, stepped):
    changed = completions()
    changed.prompts[2], changed.tokens[2] = 9, 9
    changed.tokens[np.arange(6) >= changed.batch.lengths[..., None]] = 8
    changed.sampled_logprobs[np.arange(6) >= changed.batch.lengths[..., None]] = 1e9
    other = one.step(one.cut(changed))
    close(other.gradient, stepped.gradient, 1e-6)
    assert other.metrics["loss"] == pytest.approx(stepped.metrics["loss"], abs=1e-6)
    assert other.metrics["sampling/logp_difference/max"] < 100


@pytest.mark.parametrize("mesh", ["8x1", "4x2", "2x4"])
def test_mesh_and_portions_change_nothing_and_the_mesh_holds_the_state_in_pieces(make_layout, policy, stepped, mesh):
    updates = Updates(make_layout(mesh), policy)
    begun = updates.start()
    first = updates.step(updates.cut(completions(), rows=2), state=begun)
    assert all(x.is_deleted() for x in jax.tree.leaves(begun))  # donated
    assert first.metrics == pytest.approx(stepped.metrics, rel=1e-5, abs=1e-6)
    close(first.gradient, stepped.gradient, 2e-6)
    close(first.state.params, stepped.state.params, 1e-5)

    assert [x.sharding for x in jax.tree.leaves(first.state)] == jax.tree.leaves(updates.learner.shardings)
    fsdp, tensor = map(int, mesh.split("x"))
    for tree in (first.state.params, first.state.moments[1].mu, first.state.moments[1].nu):
        pieces = lambda x: {s.data.shape for s in x[...].addressable_shards}
        assert pieces(tree.layers.up) == {(2, 32 // fsdp, 48 // tensor)}
        assert pieces(tree.embed) == {(272 // tensor, 32 // fsdp)}
        assert pieces(tree.norm) == {(32 // fsdp,)}
        assert pieces(tree.layers.key) == {(2, 32 // fsdp, 2 // tensor or 2, 8)}  # 2 heads on 4 places: on each
    with counting_compiles() as compiles:
        second = updates.step(updates.cut(completions(1), rows=2), state=first.state)
    assert compiles.count == 0
    assert second.metrics["loss"] != first.metrics["loss"]


def test_terms_add_up_by_their_weights(one, stepped):
    first, second = one.cut(completions()), one.cut(completions(1))
    other = one.step(second)
    both = one.step(first, second, weights=(1.0, 0.5))
    close(both.gradient, jax.tree.map(lambda a, b: a + 0.5 * b, stepped.gradient, other.gradient), 2e-6)
    assert both.metrics["loss"] == pytest.approx(stepped.metrics["loss"] + 0.5 * other.metrics["loss"], abs=1e-6)
    assert both.metrics["entropy"] == pytest.approx(stepped.metrics["entropy"], rel=1e-6)


def test_further_iterations_on_one_rollout_know_its_policy_and_the_reference(one, policy, stepped):
    """With scores of its own as old and reference log-probabilities the first step is that of a single iteration."""
    algorithm = AlgorithmConfig(num_iterations=3, beta=0.04)
    updates = Updates(one.layout, policy, replace(CONFIG, algorithm=algorithm))
    state = updates.start()
    bare = updates.cut(completions())
    score = lambda params: updates.learner.score(params, bare, temperature=TEMPERATURE)
    with jax.transfer_guard("disallow"):
        scored = score(state.params)
    assert scored.shape == bare.tokens.shape
    part = bare._replace(batch=bare.batch._replace(old_logprobs=scored, ref_logprobs=scored))
    first = updates.step(part, state=state)
    close(first.gradient, stepped.gradient, 5e-6)
    assert first.metrics["kl"] == pytest.approx(0, abs=1e-9)

    with counting_compiles() as compiles:
        new = score(first.state.params)
        second = updates.step(part, state=first.state)
    assert compiles.count == 0
    whole = Batch(*(jnp.asarray(x).reshape(18, *x.shape[3:]) for x in part.batch[:4]))
    loss, metrics = igrpo_loss(jnp.asarray(new).reshape(18, 6), whole, algorithm)
    assert second.metrics["loss"] == pytest.approx(float(loss), rel=1e-5, abs=1e-5)
    assert second.metrics["kl"] == pytest.approx(float(metrics["kl"]), rel=1e-4)
    assert second.metrics["kl"] > 1e-4
    assert second.metrics["clip_ratio/region_mean"] > 0


def test_a_reference_is_required_by_beta(one, policy):
    updates = Updates(one.layout, policy, replace(CONFIG, algorithm=AlgorithmConfig(beta=0.1)))
    with pytest.raises(ValueError, match="beta > 0 needs ref_logprobs"):
        updates.step(updates.cut(completions()))


def test_half_precision_keeps_float32_masters(make_layout, policy):
    learner = Learner(decoder, make_layout("1x1"), CONFIG, jax.eval_shape(lambda: policy), dtype="bfloat16")
    part = jax.tree.map(jnp.asarray, micro_batches(completions(), rows=2, shards=1))
    numbers = (jnp.ones(1), jnp.float32(RATE), jnp.float32(TEMPERATURE))
    state, metrics = jax.eval_shape(learner._update, learner.abstract, (part,), *numbers)
    assert {x.dtype for x in jax.tree.leaves((state.params, state.moments[1].mu, metrics))} == {jnp.dtype("float32")}
    view = jax.eval_shape(learner.view, policy)
    assert {x.dtype for x in jax.tree.leaves(view)} == {jnp.dtype("bfloat16")}
