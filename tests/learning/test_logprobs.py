"""Log-probabilities of completions: against plain forwards, through a shared prefix, in chunks, in little memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.learning.logprobs import chunked_logprobs, completion_logprobs
from igrpo_jax.learning.microbatches import Shape, pack
from models import decoder
from models.gradients import lookup

pytestmark = pytest.mark.usefixtures("quick_compile")

random = np.random.default_rng(0)
PROMPTS = random.integers(0, 272, (2, 6)).astype(np.int32)
LENGTHS = np.array([6, 3], np.int32)
COMPLETIONS = random.integers(0, 272, (2, 3, 5)).astype(np.int32)
SHARES = random.normal(size=(2, 3, 5)).astype(np.float32)
TEMPERATURE = np.float32(0.7)


def objective(policy, prompts, lengths, completions, shares):
    scored = completion_logprobs(
        decoder, policy, prompts, lengths, completions, temperature=jnp.asarray(TEMPERATURE), chunk=2
    )
    return (scored.logprobs * shares).sum(), scored


score = jax.jit(jax.grad(objective, has_aux=True))


@pytest.fixture(scope="module")
def shared(policy):
    return score(policy, PROMPTS, LENGTHS, COMPLETIONS, SHARES)


def test_equal_those_of_a_plain_forward_of_prompt_and_completion(policy, reference, shared):
    for p, g in np.ndindex(2, 3):
        n = LENGTHS[p]
        logits = reference(policy, np.concatenate([PROMPTS[p, :n], COMPLETIONS[p, g]]))[n - 1 : -1] / TEMPERATURE
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        np.testing.assert_allclose(
            shared[1].logprobs[p, g], np.take_along_axis(logits, COMPLETIONS[p, g][:, None], 1)[:, 0], atol=2e-4
        )
        np.testing.assert_allclose(shared[1].entropy[p, g], -(np.exp(logits) * logits).sum(-1), atol=2e-4)


def test_a_shared_prompt_has_the_gradient_of_a_repeated_one(policy, shared):
    repeat = partial(np.repeat, repeats=3, axis=0)
    apart = (x.reshape(6, 1, 5) for x in (COMPLETIONS, SHARES))
    grads, scored = score(policy, repeat(PROMPTS), repeat(LENGTHS), *apart)
    np.testing.assert_allclose(scored.logprobs.reshape(2, 3, 5), shared[1].logprobs, atol=1e-5)
    assert np.abs(grads.embed[...][PROMPTS[0]]).min() > 0  # it does flow through the prompt
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(shared[0]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("slots", [19, 15, 21])
def test_packed_completions_have_the_log_probabilities_and_gradients_of_padded_ones(policy, slots):
    """Three completions of 4, 0 and 5 tokens and of 1, 2 and 5; with few, no and as many empty slots as padding."""
    lengths = np.array([[4, 0, 5], [1, 2, 5]])
    real = np.arange(5) < lengths[..., None]
    shares, packed = SHARES * real, pack(LENGTHS, lengths, Shape(6, 5, slots))

    def loss(policy, packed):
        scored = completion_logprobs(
            decoder, policy, PROMPTS, LENGTHS, COMPLETIONS, temperature=jnp.asarray(TEMPERATURE), chunk=2, packed=packed
        )
        return (scored.logprobs * shares).sum(), scored

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    (expected, padded), (found, scored) = gradient(policy, None), gradient(policy, packed)
    for a, b in zip(scored, padded, strict=True):
        np.testing.assert_allclose(a[real], b[real], atol=1e-5)
        assert not np.any(a[~real])
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


def test_a_completion_is_scored_apart_from_its_padding_and_its_neighbors(policy, shared):
    completions = COMPLETIONS.copy()
    completions[:, 0] = 7
    completions[1, 2, 3:] = 9
    prompts = PROMPTS.copy()
    prompts[1, 3:] = 11
    _, scored = score(policy, prompts, LENGTHS, completions, SHARES)
    np.testing.assert_allclose(scored.logprobs[:, 1], shared[1].logprobs[:, 1], atol=1e-5)
    np.testing.assert_allclose(scored.logprobs[1, 2, :3], shared[1].logprobs[1, 2, :3], atol=1e-5)


def test_chunks_change_nothing(policy):
    hidden = jnp.asarray(np.random.default_rng(1).normal(size=(2, 15, 32)), jnp.float32)
    tokens, shares = jnp.asarray(COMPLETIONS.reshape(2, 15)), SHARES.reshape(2, 15)

    def chunked(hidden, chunk, count=None):
        scored = chunked_logprobs(
            decoder, policy, hidden, tokens, temperature=jnp.asarray(TEMPERATURE), chunk=chunk, count=count
        )
        # The entropy must not reach the gradient.
        return (scored.logprobs * shares + scored.entropy).sum() - jax.lax.stop_gradient(scored.entropy).sum(), scored

    def plain(hidden):
        logprobs = jax.nn.log_softmax(decoder.unembed(policy, hidden) / TEMPERATURE)
        chosen = jnp.take_along_axis(logprobs, tokens[..., None], -1)[..., 0]
        return (chosen * shares).sum(), (chosen, -(jnp.exp(logprobs) * logprobs).sum(-1))

    (_, expected), expected_grad = jax.jit(jax.value_and_grad(plain, has_aux=True))(hidden)
    run = jax.jit(jax.value_and_grad(chunked, has_aux=True), static_argnums=1)
    for chunk in (1, 2, 4, 5, 64):
        (_, scored), grad = run(hidden, chunk)
        np.testing.assert_allclose(scored.logprobs, expected[0], atol=1e-5)
        np.testing.assert_allclose(scored.entropy, expected[1], atol=1e-5)
        np.testing.assert_allclose(grad, expected_grad, atol=1e-5)
    (_, scored), grad = run(hidden, 4, jnp.asarray(5))  # two chunks of four, and no more
    np.testing.assert_allclose(scored.logprobs[:, :8], expected[0][:, :8], atol=1e-5)
    np.testing.assert_allclose(grad[:, :8], expected_grad[:, :8], atol=1e-5)
    assert not np.any(scored.logprobs[:, 8:]) and not np.any(scored.entropy[:, 8:]) and not np.any(grad[:, 8:])


@pytest.mark.parametrize("tied", [True, False])
def test_in_half_precision_gradients_are_added_up_in_float32(make_policy, tied):
    """A sum in bfloat16 stays where it is once it is 256 times as large as what is added."""
    policy = jax.tree.map(lambda x: x.astype(jnp.bfloat16), make_policy(tied=tied))
    count, token = 1024, 7
    tokens = jnp.full((1, count), token)
    hidden = jnp.broadcast_to(jnp.asarray(np.random.default_rng(2).normal(size=32), jnp.bfloat16), (1, count, 32))

    def scored(policy, chunk):
        found = chunked_logprobs(decoder, policy, hidden, tokens, temperature=jnp.asarray(TEMPERATURE), chunk=chunk)
        return found.logprobs.sum()

    grad = jax.jit(jax.grad(scored), static_argnums=1)
    whole, apart = (jax.tree.leaves(grad(policy, chunk)) for chunk in (count, 1))
    for a, b in zip(apart, whole, strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=0.02, atol=1e-3)
    table = jax.grad(lambda table: lookup(table, tokens).astype(jnp.float32).sum())(policy.embed[...])
    assert np.all(table[token] == count)


def arrays(jaxpr):
    """Shapes of everything computed in a program, loops and recomputation included."""
    for equation in jaxpr.eqns:
        yield from (out.aval.shape for out in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from arrays(inner)


def test_logits_of_all_positions_never_exist_at_once(policy):
    tokens = jnp.zeros((2, 3, 64), jnp.int32)

    def largest(chunk, packed=None):
        """Size of the largest array over the vocabulary in the gradient's program, the weights' own left out."""

        def loss(policy):
            scored = completion_logprobs(
                decoder,
                policy,
                jnp.asarray(PROMPTS),
                jnp.asarray(LENGTHS),
                tokens,
                temperature=jnp.ones(()),
                chunk=chunk,
                packed=packed,
            )
            return (scored.logprobs + scored.entropy).sum()

        shapes = set(arrays(jax.make_jaxpr(jax.grad(loss))(policy).jaxpr))
        return max(np.prod(shape) for shape in shapes if 272 in shape and shape[-2:] not in ((272, 32), (32, 272)))

    assert largest(3 * 64) == 2 * 3 * 64 * 272
    assert largest(12) == 2 * 12 * 272
    half = pack(LENGTHS, np.full((2, 3), 32), Shape(6, 64, 102))
    assert largest(12, half) == 2 * 12 * 272
