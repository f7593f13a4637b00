"""Attention in blocks and over several runs of keys: the same as in one piece, in memory that grows with T alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.learning.logprobs import completion_logprobs
from models import attention, decoder
from models.attention import Own, Partial, Prompt, attend, attend_run, merge

pytestmark = pytest.mark.usefixtures("quick_compile")

random = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(random.normal(size=shape), jnp.float32)


def plain(queries, prompt, own, limits):
    """float64 softmax over both runs of keys, written out a query at a time."""
    out = np.zeros(queries.shape)
    group, samples = queries.shape[3] // own.keys.shape[1], queries.shape[1]
    for p, g, t, n in np.ndindex(*queries.shape[:4]):
        keys, values = (
            np.concatenate(
                [shared[p, n // group, : prompt.lengths[p]], mine[p * samples + g, n // group, : limits[p, g, t]]]
            )
            for shared, mine in ((prompt.keys.swapaxes(-2, -1), own.keys.swapaxes(-2, -1)), (prompt.values, own.values))
        )
        scores = np.asarray(keys, np.float64) @ np.asarray(queries[p, g, t, n], np.float64) / np.sqrt(keys.shape[-1])
        weights = np.exp(scores - scores.max())
        out[p, g, t, n] = weights @ values / weights.sum()
    return out


@pytest.fixture
def inputs():
    """2 problems x 2 samples of 11 tokens, 4 heads on 2, prompts of 5 tokens or none of 6 slots."""
    queries, keys, values = normal(2, 2, 11, 4, 8), normal(4, 2, 8, 11), normal(4, 2, 11, 8)
    return queries, Prompt(normal(2, 2, 8, 6), normal(2, 2, 6, 8), np.array([5, 0], np.int32)), keys, values


@pytest.fixture(params=[(128, 4), (11, 4), (4, 4), (2, 2), (1, 3)], ids=str)
def blocks(request, monkeypatch):
    """In one block, the last one not full, several segments, in loops and not."""
    for name, value in zip(("BLOCK", "SEGMENTS"), request.param, strict=True):
        monkeypatch.setattr(attention, name, value)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("causal", [True, False])
def test_equals_one_softmax_over_prompt_and_own_tokens(inputs, causal):
    queries, prompt, keys, values = inputs
    limits = np.broadcast_to(np.arange(1, 12), (2, 2, 11)) if causal else random.integers(1, 12, (2, 2, 11))
    own = Own(keys, values, None if causal else jnp.asarray(np.arange(11) < limits[..., None]))
    found = jax.jit(attend)(queries, prompt, own)
    np.testing.assert_allclose(found, plain(queries, prompt, own, limits), atol=1e-6)


@pytest.mark.usefixtures("blocks")
def test_gradients_do_not_depend_on_blocks(inputs, monkeypatch):
    queries, prompt, keys, values = inputs
    target = normal(*queries.shape)

    def gradient():
        def loss(queries, shared_keys, shared_values, keys, values):
            shared = prompt._replace(keys=shared_keys, values=shared_values)
            return (target * attend(queries, shared, Own(keys, values, None))).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4)))(queries, *prompt[:2], keys, values)

    found = gradient()
    monkeypatch.setattr(attention, "BLOCK", 64)
    for a, b in zip(found, gradient(), strict=True):
        assert np.isfinite(a).all() and np.abs(b).max() > 0.1
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def test_a_normalized_output_and_its_logsumexp_merge_alike(inputs):
    """With the gradient that flows through the log-sum-exp."""
    queries, prompt, keys, values = inputs
    q, everything = queries[:, 0], jnp.ones((2, 1, 11), bool)
    real = jnp.arange(6)[None, None] < prompt.lengths[:1, None, None]

    def kernel(*arguments):
        made = attend_run(*arguments)
        return Partial(made.out / made.total, jnp.ones_like(made.total), made.peak + jnp.log(made.total))

    def both(run, q, keys, values):
        shared = run(q, prompt.keys, prompt.values, real)
        found = merge(run(q, keys, values, everything), shared)
        return found.out / found.total

    def gradient(run):
        return jax.jit(jax.grad(lambda *x: (both(run, *x) ** 2).sum(), argnums=(0, 1, 2)))(q, keys[::2], values[::2])

    found, expected = (both(run, q, keys[::2], values[::2]) for run in (kernel, attend_run))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for a, b in zip(gradient(kernel), gradient(attend_run), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [5, 7])
def test_a_policy_in_blocks_is_the_reference(policy, reference, monkeypatch, block):
    """Prompt and completion both longer than a block; log-probabilities through the whole of the policy."""
    monkeypatch.setattr(attention, "BLOCK", block)
    prompt, tokens = random.integers(0, 272, 17), random.integers(0, 272, 23)
    scored = jax.jit(
        lambda policy: completion_logprobs(
            decoder, policy, jnp.asarray(prompt[None], jnp.int32), jnp.array([17], jnp.int32),
            jnp.asarray(tokens[None, None], jnp.int32), temperature=jnp.ones(()), chunk=8,
        )
    )(policy)  # fmt: skip
    logits = reference(policy, np.concatenate([prompt, tokens]))[16:-1]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(scored.logprobs[0, 0], expected[np.arange(23), tokens], atol=2e-4)


def temporary(make_policy, *, prompt, tokens, monkeypatch, **changes):
    """Bytes beside inputs and outputs that the gradient of a loss of 2 completions needs."""
    monkeypatch.setattr(attention, "BLOCK", 32)
    policy = jax.eval_shape(lambda: make_policy(**changes))
    integers = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)

    def loss(policy, prompts, lengths, completions):
        scored = completion_logprobs(
            decoder, policy, prompts, lengths, completions, temperature=jnp.ones(()), chunk=16
        )  # fmt: skip
        return scored.logprobs.sum()

    compiled = jax.jit(jax.grad(loss)).lower(policy, integers(1, prompt), integers(1), integers(1, 2, tokens)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("remat", ["full", "none"])
def test_memory_grows_linearly_with_completion_and_prompt(make_policy, monkeypatch, remat):
    """Many heads and little else, so that scores of all pairs, if there were any, would be most of it."""

    def make(**changes):
        policy = make_policy(**changes)
        policy.remat = remat
        return policy

    shape = {"heads": 16, "kv_heads": 2, "width": 16, "mlp": 16, "head_dim": 4, "monkeypatch": monkeypatch}
    short, long = (temporary(make, prompt=size, tokens=size, **shape) for size in (512, 1024))
    assert long < 2.2 * short
    assert long < 2 * 16 * 1024 * 2048 * 4 / 4  # a quarter of one array of a layer's scores


def test_memory_does_not_grow_with_the_vocabulary_times_the_completion(make_policy, monkeypatch):
    shape = {"vocab_size": 152_000, "width": 8, "mlp": 16, "monkeypatch": monkeypatch, "prompt": 16}
    short, long = (temporary(make_policy, tokens=tokens, **shape) for tokens in (128, 512))
    logits = 2 * 16 * 152_000 * 4
    assert short > logits  # of one chunk
    assert long - short < logits
