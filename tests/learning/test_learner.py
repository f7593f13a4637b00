"""The update: the same step on every mesh and in any portions, and the right one."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.config import AlgorithmConfig, Config, OptimConfig, TrainConfig
from igrpo_jax.learning import microbatches
from igrpo_jax.learning.learner import Learner
from igrpo_jax.learning.logprobs import completion_logprobs
from igrpo_jax.learning.microbatches import Completions
from igrpo_jax.learning.optimizer import TrainState, learning_rate
from igrpo_jax.losses import LOSS_TYPES, igrpo_loss
from igrpo_jax.records.machine.compiles import counting_compiles
from igrpo_jax.types import Batch
from models import decoder

pytestmark = pytest.mark.usefixtures("quick_compile")

OPTIM = OptimConfig(adam_epsilon=1e-3, beta1=0.75, max_grad_norm=0.05, weight_decay=0.1)
CONFIG = Config(train=TrainConfig(logprob_chunk=12), optim=OPTIM)
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

    def cut(self, whole, weight=1.0, rows=3):
        with jax.transfer_guard("disallow"):
            return self.learner.cut(whole, rows=rows, weight=weight)

    def step(self, *terms, state=None):
        state = self.start() if state is None else state
        with self.layout.active(), jax.transfer_guard("disallow"):
            state, metrics = self.learner.update(state, terms, lr=RATE, temperature=TEMPERATURE)
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


def test_a_step_is_adamw_on_the_gradient_of_the_loss(policy, stepped):
    """Moments, clipping, bias correction and decay written out in numpy, on a gradient without micro-batches.

    The step that it is compared with took four micro-batches of three completions without the dead group.
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
    own[2] = False  # nothing is computed for the group without advantages
    gap = np.abs(scored.logprobs - completions().sampled_logprobs)[own]
    assert stepped.metrics == pytest.approx(
        {
            "loss": float(loss),
            "grad_norm": norm,
            "update/nonfinite": 0.0,
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


def test_clipping_makes_no_second_gradient(one):
    reports = (one.learner.report(completions()),)
    memory = one.learner.optimizer_program(reports).lower().compile().memory_analysis()
    gradient = sum(x.nbytes for x in jax.tree.leaves(one.policy))
    assert memory.temp_size_in_bytes < 0.5 * gradient
    # Nor does leaving a step out make a second state: the new one lies where the old one was.
    assert memory.alias_size_in_bytes >= sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one.learner.placed))


def test_a_gradient_below_the_limit_is_not_clipped(make_layout, policy, stepped):
    wide = Updates(make_layout("1x1"), policy, replace(CONFIG, optim=replace(OPTIM, max_grad_norm=1e3)))
    mu = wide.step(wide.cut(completions())).state.moments[1].mu
    close(mu, jax.tree.map(lambda g: g * (1 - OPTIM.beta1), stepped.gradient), 1e-7)


def test_a_dead_group_is_left_out_but_keeps_its_share(one, stepped):
    """With beta > 0 it is computed, and adds nothing to the surrogate."""
    left_out = one.cut(completions())
    assert (left_out.dead_groups, left_out.groups, len(left_out.parts)) == (1, 4, 4)
    kept = Updates(one.layout, one.policy, replace(CONFIG, algorithm=AlgorithmConfig(beta=1e-12)))
    batch = completions().batch._replace(ref_logprobs=np.full((4, 4, 6), -3, np.float32))
    term = kept.cut(completions()._replace(batch=batch))
    assert (term.dead_groups, len(term.parts)) == (0, 6)
    other = kept.step(term)
    close(other.gradient, stepped.gradient, 1e-6)
    assert other.metrics["loss"] == pytest.approx(stepped.metrics["loss"], abs=1e-6)


@pytest.fixture
def short(monkeypatch):
    """Shapes for completions of a few tokens."""
    monkeypatch.setattr(microbatches, "MULTIPLE", 1)
    monkeypatch.setattr(microbatches, "SHORTEST", 2)
    monkeypatch.setattr(microbatches, "FEWEST", 2)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("rows", [1, 2])
def test_shapes_by_length_change_nothing(one, stepped, rows):
    """Every micro-batch as short as its completions and prompts allow, against all of them padded to one shape."""
    term = one.cut(completions(), rows=rows)
    shapes = {(part.prompts.shape[1], part.tokens.shape[2], part.packed.places.shape[1]) for part in term.parts}
    assert shapes >= {1: {(3, 2, 4), (5, 6, 5), (5, 6, 11)}, 2: {(3, 2, 6), (5, 6, 9), (5, 6, 17)}}[rows]
    assert term.computed_tokens < one.cut(completions()).computed_tokens
    other = one.step(term)
    close(other.gradient, stepped.gradient, 2e-6)
    assert other.metrics == pytest.approx(stepped.metrics, rel=1e-5, abs=1e-6)

    with counting_compiles() as compiles:
        one.step(one.cut(completions(2), rows=rows), state=other.state)
    assert compiles.count == 0  # whatever the lengths, the shapes are of one menu


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("mesh", ["4x2", "2x4"])
def test_shapes_by_length_change_nothing_on_a_mesh(make_layout, policy, stepped, mesh):
    updates = Updates(make_layout(mesh), policy)
    term = updates.cut(completions(), rows=2)
    assert len({part.packed.places.shape[1] for part in term.parts}) > 1
    other = updates.step(term)
    close(other.gradient, stepped.gradient, 2e-6)
    assert other.metrics == pytest.approx(stepped.metrics, rel=1e-5, abs=1e-6)


def test_a_shared_prompt_trains_as_one_prompt_a_completion_would(one, stepped):
    """Every completion its own group with its own copy of the prompt: the same loss and gradient."""
    whole = completions()
    apart = jax.tree.map(lambda x: x.reshape(16, 1, *x.shape[2:]), (whole.tokens, whole.batch, whole.sampled_logprobs))
    repeated = Completions(np.repeat(whole.prompts, 4, 0), np.repeat(whole.prompt_lengths, 4), *apart)
    other = one.step(one.cut(repeated))
    close(other.gradient, stepped.gradient, 2e-6)
    assert max(np.abs(x).max() for x in jax.tree.leaves(stepped.gradient)) > 0.1
    assert other.metrics == pytest.approx(stepped.metrics, rel=1e-5, abs=1e-6)


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
    other = one.step(one.cut(completions(1)))
    both = one.step(one.cut(completions()), one.cut(completions(1), weight=0.5))
    close(both.gradient, jax.tree.map(lambda a, b: a + 0.5 * b, stepped.gradient, other.gradient), 2e-6)
    assert both.metrics["loss"] == pytest.approx(stepped.metrics["loss"] + 0.5 * other.metrics["loss"], abs=1e-6)
    assert both.metrics["entropy"] == pytest.approx(stepped.metrics["entropy"], rel=1e-6)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_further_iterations_on_one_rollout_know_its_policy_and_the_reference(one, policy, stepped, loss_type):
    """With scores of its own as old and reference log-probabilities the first step is that of a single iteration."""
    algorithm = AlgorithmConfig(num_iterations=3, beta=0.04, loss_type=loss_type)
    updates = Updates(one.layout, policy, replace(CONFIG, algorithm=algorithm))
    state = updates.start()
    room = completions().batch._replace(old_logprobs=np.zeros((4, 4, 6)), ref_logprobs=np.zeros((4, 4, 6)))
    bare = updates.cut(completions()._replace(batch=room))
    score = lambda params: updates.learner.score(params, bare, temperature=TEMPERATURE)
    with jax.transfer_guard("disallow"):
        scored = score(state.params)
    assert [x.shape for x in scored] == [x.tokens.shape for x in bare.parts]
    fill = lambda part, x: part._replace(batch=part.batch._replace(old_logprobs=x, ref_logprobs=x))
    part = bare._replace(parts=[fill(*pair) for pair in zip(bare.parts, scored, strict=True)])
    first = updates.step(part, state=state)
    if loss_type in ("grpo", "gspo"):  # the same gradient while all ratios are 1
        close(first.gradient, stepped.gradient, 5e-6)
    assert first.metrics["kl"] == pytest.approx(0, abs=1e-9)

    with counting_compiles() as compiles:
        new = score(first.state.params)
        second = updates.step(part, state=first.state)
    assert compiles.count == 0
    join = lambda *x: jnp.concatenate([jnp.asarray(y).reshape(3, *y.shape[2:]) for y in x])
    whole = jax.tree.map(join, *(x.batch for x in part.parts))
    loss, metrics = igrpo_loss(join(*new), whole, algorithm)
    assert second.metrics["loss"] == pytest.approx(float(loss), rel=1e-5, abs=1e-5)
    assert second.metrics["kl"] == pytest.approx(float(metrics["kl"]), rel=1e-4)
    assert second.metrics["kl"] > 1e-4
    assert second.metrics["clip_ratio/region_mean"] > 0 or loss_type == "gspo"


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("mesh", "rows"), [("1x1", 1), ("1x1", 3), ("4x2", 2)])
def test_log_probabilities_of_all_completions_are_back_in_their_places(make_layout, policy, mesh, rows):
    """Whatever the micro-batches they were scored in: their order, their shapes, what fills them up."""
    updates, whole = Updates(make_layout(mesh), policy), completions()
    direct = completion_logprobs(
        decoder, policy, *map(jnp.asarray, whole[:3]), temperature=jnp.float32(TEMPERATURE), chunk=64
    ).logprobs
    with updates.layout.active(), jax.transfer_guard("disallow"):
        params = updates.start().params
        found = updates.learner.score_all(params, whole, rows=rows, temperature=TEMPERATURE)
        with counting_compiles() as compiles:
            updates.learner.score_all(params, completions(2), rows=rows, temperature=TEMPERATURE)
    assert compiles.count == 0
    own = np.arange(6) < whole.batch.lengths[..., None]
    np.testing.assert_allclose(found, np.where(own, direct, 0), atol=2e-5)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_masked_completions_have_no_part_in_the_update_but_count(one, policy, loss_type):
    """Length 0 in a real group, against the whole loss with no weight at their tokens."""
    algorithm = AlgorithmConfig(loss_type=loss_type)
    updates, whole = Updates(one.layout, policy, replace(CONFIG, algorithm=algorithm)), completions()
    lengths, kept = whole.batch.lengths, np.random.default_rng(5).random((4, 4)) < 0.6
    kept[0], kept[1, :3] = False, False  # a whole group, and all of a sub-group of 2
    batch = whole.batch._replace(
        lengths=np.where(kept, lengths, 0), advantages=np.where(kept, whole.batch.advantages, 0).astype(np.float32)
    )
    term = updates.cut(whole._replace(batch=batch), rows=2)
    assert term.dead_groups == 2 and term.real_tokens < updates.cut(whole, rows=2).real_tokens
    got = updates.step(term)

    own = np.arange(6) < np.where(kept, lengths, 0)[..., None]
    divisor = {
        "grpo": 16 * lengths[..., None], "gspo": 16 * lengths[..., None], "dr_grpo": 16 * 6, "dapo": own.sum(),
        "cispo": own.sum(),
    }[loss_type]  # fmt: skip
    factor = jnp.asarray(own * whole.batch.advantages[..., None] / divisor, jnp.float32)

    @jax.jit
    @jax.value_and_grad
    def plain(policy):
        arrays = map(jnp.asarray, whole[:3])
        scored = completion_logprobs(decoder, policy, *arrays, temperature=jnp.float32(TEMPERATURE), chunk=64)
        return -(factor * scored.logprobs).sum()  # the policy gradient

    loss, grads = plain(policy)
    close(got.gradient, jax.tree.map(np.asarray, grads), 3e-6)
    assert got.metrics["loss"] == pytest.approx(float(loss if loss_type == "cispo" else -factor.sum()), abs=1e-5)


def test_a_reference_is_required_by_beta(one, policy):
    updates = Updates(one.layout, policy, replace(CONFIG, algorithm=AlgorithmConfig(beta=0.1)))
    with pytest.raises(ValueError, match="beta > 0 needs ref_logprobs"):
        updates.step(updates.cut(completions()))


def test_half_precision_keeps_float32_masters(make_layout, policy):
    learner = Learner(decoder, make_layout("1x1"), CONFIG, jax.eval_shape(lambda: policy), dtype="bfloat16")
    part, *_ = learner.cut(completions(), rows=2).parts
    state, number = learner.abstract, jnp.float32(TEMPERATURE)
    grads, report = jax.eval_shape(learner._accumulate, state.params, state.params, learner.report(part), part, number)
    state, metrics = jax.eval_shape(learner._apply, state, grads, (report,), number)
    assert {x.dtype for x in jax.tree.leaves((grads, state.params, state.moments[1].mu, metrics))} == {
        jnp.dtype("float32")
    }
    view = jax.eval_shape(learner.view, policy)
    assert {x.dtype for x in jax.tree.leaves(view)} == {jnp.dtype("bfloat16")}
