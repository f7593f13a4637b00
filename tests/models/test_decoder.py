"""The decoder's structure: what may influence what, and that its ways of computing the same thing agree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.planning.collectives import collectives
from models import decoder
from models.config import RopeScaling

pytestmark = pytest.mark.usefixtures("quick_compile")

PROMPTS = np.array([[11, 12, 13, 14, 15], [21, 22, 23, 0, 0]], np.int32)
LENGTHS = np.array([5, 3], np.int32)
COMPLETIONS = np.array([[[31, 32, 33, 34], [41, 42, 43, 44]], [[51, 52, 53, 54], [61, 62, 63, 64]]], np.int32)

VARIANTS = [
    {},
    {"family": "qwen2", "qk_norm": False, "qkv_bias": True, "tied": True, "kv_heads": 4, "head_dim": 16},
    {
        "family": "llama",
        "qk_norm": False,
        "kv_heads": 1,
        "rope_scaling": RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=32),
    },
]

prefill, extend = jax.jit(decoder.prefill), jax.jit(decoder.extend)


@jax.jit
def forward(policy, prompts, lengths, completions):
    """Hidden states [P, G, 1 + T, D]: the prompt's last and the completion's."""
    last, prefix = decoder.prefill(policy, prompts, lengths)
    hidden, _ = decoder.extend(policy, completions, prefix)
    first = jnp.broadcast_to(last[:, None, None], (*hidden.shape[:2], 1, hidden.shape[-1]))
    return jnp.concatenate([first, hidden], axis=2)


@pytest.fixture(scope="module")
def hidden(policy):
    return forward(policy, PROMPTS, LENGTHS, COMPLETIONS)


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: changes.get("family", "qwen3"))
def test_logits_equal_a_plain_forward_of_every_row(make_policy, reference, changes):
    policy = make_policy(seed=1, **changes)
    logits = decoder.unembed(policy, forward(policy, PROMPTS, LENGTHS, COMPLETIONS))
    assert logits.dtype == jnp.float32
    for p, g in np.ndindex(2, 2):
        n = LENGTHS[p]
        plain = reference(policy, np.concatenate([PROMPTS[p, :n], COMPLETIONS[p, g]]))
        assert plain.std() > 1  # a flat distribution would prove nothing
        np.testing.assert_allclose(logits[p, g], plain[n - 1 :], atol=2e-4)


def test_gradients_prove_who_sees_what(policy):
    """Every position has a token of its own, so the rows of the embedding with a gradient are the positions seen."""

    @jax.jit
    def seen(policy):
        def run(embed):
            changed = jax.tree.map(lambda x: x, policy)
            changed.embed = decoder.nnx.Param(embed, axes=policy.embed.axes)
            return forward(changed, PROMPTS, LENGTHS, COMPLETIONS).sum(-1)

        out, vjp = jax.vjp(run, policy.embed[...])
        one_hot = jnp.eye(out.size).reshape(-1, *out.shape)
        return jnp.any(jax.vmap(lambda c: vjp(c)[0])(one_hot) != 0, axis=-1).reshape(*out.shape, -1)

    found = seen(policy)
    for p, g, t in np.ndindex(2, 2, 5):
        expected = {*PROMPTS[p, : LENGTHS[p]].tolist(), *COMPLETIONS[p, g, :t].tolist()}
        assert set(np.flatnonzero(found[p, g, t]).tolist()) == expected, (p, g, t)


def used(*rows):
    return jnp.array(rows, jnp.int32)


def test_cached_decode_through_a_growing_cache_equals_the_forward(policy, hidden):
    view = jax.jit(partial(decoder.sampling_view, dtype=jnp.float32))(policy)
    last, prefix = prefill(view, PROMPTS, LENGTHS)
    cache = decoder.new_cache(view, prefix, 2, 2)
    steps = [jnp.broadcast_to(last[:, None, None], (2, 2, 1, 32))]
    for t in range(4):
        if t == 2:
            cache = decoder.resize(cache, 4)
        step, cache = extend(view, COMPLETIONS[:, :, t : t + 1], prefix, cache, used([t, t], [t, t]))
        steps.append(step)
    np.testing.assert_allclose(np.concatenate(steps, axis=2), hidden, atol=2e-5)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
def test_a_long_prompt_in_chunks_is_the_same_prompt(policy, chunk, monkeypatch):
    view = decoder.sampling_view(policy, jnp.float32)
    whole = prefill(view, PROMPTS, LENGTHS)
    monkeypatch.setattr(decoder, "CHUNK", chunk)
    last, prefix = jax.jit(lambda *inputs: decoder.prefill(*inputs))(view, PROMPTS, LENGTHS)
    np.testing.assert_allclose(last, whole[0], atol=1e-5)
    for mine, other in zip(prefix.layers, whole[1].layers, strict=True):
        for p, n in enumerate(LENGTHS):
            np.testing.assert_allclose(mine.keys[p, :, :, :n], other.keys[p, :, :, :n], atol=1e-5)
            np.testing.assert_allclose(mine.values[p, :, :n], other.values[p, :, :n], atol=1e-5)
        assert mine.keys.shape == other.keys.shape and mine.values.shape == other.values.shape


def test_chunks_behind_the_last_prompt_are_not_computed_and_are_counted_at_most(policy, monkeypatch):
    view = decoder.sampling_view(policy, jnp.float32)
    monkeypatch.setattr(decoder, "CHUNK", 1)
    program = (
        jax.jit(lambda *inputs: decoder.prefill(*inputs)).lower(view, PROMPTS, np.array([2, 3], np.int32)).compile()
    )
    last, prefix = program(view, PROMPTS, np.array([2, 3], np.int32))
    np.testing.assert_allclose(last, prefill(view, PROMPTS, np.array([2, 3], np.int32))[0], atol=1e-5)
    for layer in prefix.layers:
        assert np.any(layer.values[0, :, 2]) and not np.any(layer.keys[..., 3:]) and not np.any(layer.values[:, :, 3:])
    assert collectives(program.as_text())[1] == 0


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: changes.get("family", "qwen3"))
def test_a_view_of_each_family_gives_the_same_hidden_states(make_policy, changes):
    """Biases, norms of heads, tied and untied: with features in front and one token at a time."""
    policy = make_policy(**changes)
    view = jax.jit(partial(decoder.sampling_view, dtype=jnp.float32))(policy)
    _, prefix = prefill(view, PROMPTS, LENGTHS)
    cache, steps = decoder.new_cache(view, prefix, 2, 4), []
    for t in range(4):
        step, cache = extend(view, COMPLETIONS[:, :, t : t + 1], prefix, cache, used([t, t], [t, t]))
        steps.append(step)
    found, expected = jnp.concatenate(steps, axis=2), forward(policy, PROMPTS, LENGTHS, COMPLETIONS)[:, :, 1:]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(decoder.unembed(view, found), decoder.unembed(policy, expected), atol=5e-5)


def test_on_cpu_a_view_returns_to_the_width_by_two_matmuls(policy, make_layout):
    whole = jax.jit(partial(decoder.sampling_view, dtype=jnp.float32))(policy)
    with make_layout("1x1").active():
        view = jax.jit(partial(decoder.sampling_view, dtype=jnp.float32))(policy)
        hidden, prefix = prefill(view, PROMPTS, LENGTHS)
    for name in ("out", "down"):
        one, two = getattr(whole.layers[1], name), getattr(view.layers[1], name)
        assert [half.axes for half in two] == [one.axes, one.axes]
        assert two[0].shape == two[1].shape
        np.testing.assert_array_equal(jnp.concatenate([half[...] for half in two]), one[...])
    expected, other = prefill(whole, PROMPTS, LENGTHS)
    for a, b in zip(jax.tree.leaves((hidden, prefix)), jax.tree.leaves((expected, other)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_rows_are_at_different_places_and_start_anew_over_what_others_left(policy, hidden):
    view = jax.jit(partial(decoder.sampling_view, dtype=jnp.float32))(policy)
    _, prefix = prefill(view, PROMPTS, LENGTHS)
    cache = decoder.new_cache(view, prefix, 2, 5)
    cache = cache._replace(layers=jax.tree.map(lambda x: x + 7.0, cache.layers))
    ahead, places = np.array([[2, 0], [0, 1]]), np.zeros((2, 2), np.int32)
    for t in range(4):
        tokens = np.take_along_axis(COMPLETIONS, places[..., None], axis=2)
        step, cache = extend(view, tokens, prefix, cache, jnp.asarray(places))
        wanted = np.take_along_axis(np.asarray(hidden), places[..., None, None] + 1, axis=2)
        np.testing.assert_allclose(step, wanted, atol=2e-5)
        places = np.where((t + ahead) % 3 == 2, 0, places + 1).astype(np.int32)  # a row's end: the next one begins
    assert len(np.unique(places)) > 1


@pytest.mark.parametrize("capacities", [(4, 8), (8, 4)])
def test_a_ring_keeps_what_came_last_when_it_grows_or_shrinks(policy, hidden, capacities):
    """Rows at different places before and after; one fills a ring of four slots that has turned when it grows."""
    view = jax.jit(partial(decoder.sampling_view, dtype=jnp.float32))(policy)
    _, prefix = prefill(view, PROMPTS, LENGTHS)
    cache = decoder.new_cache(view, prefix, 2, capacities[0])._replace(next=jnp.int32(3))
    rows = np.array(
        [[0, 1, 2, 3, 0, 1, 2, 3], [0, 0, 1, 0, 1, 2, 0, 1], [0, 1, 0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 1, 2, 3, 0]]
    )
    for t in range(8):
        if t in (4, 6):
            cache = jax.jit(decoder.resize, static_argnums=1)(cache, capacities[t == 4])
        places = rows[:, t].reshape(2, 2).astype(np.int32)
        tokens = np.take_along_axis(COMPLETIONS, places[..., None], axis=2)
        step, cache = extend(view, tokens, prefix, cache, jnp.asarray(places))
        wanted = np.take_along_axis(np.asarray(hidden), places[..., None, None] + 1, axis=2)
        np.testing.assert_allclose(step, wanted, atol=2e-5)


def test_an_empty_prefix_that_is_filled_later_has_no_effect(policy):
    """What the slots of a prefix hold behind its length is never seen, nor is a prompt of no token."""
    view = jax.jit(partial(decoder.sampling_view, dtype=jnp.float32))(policy)
    empty = jax.jit(decoder.new_prefix, static_argnums=(1, 2))(view, 2, 8)
    assert empty.layers[0].keys.shape == (2, 2, 8, 8)
    alone, _ = extend(view, COMPLETIONS, empty)
    _, full = prefill(view, np.tile(PROMPTS[:1], (2, 1)), np.array([5, 5], np.int32))
    full = decoder.resize(full, 8)
    other, _ = extend(view, COMPLETIONS, full._replace(lengths=used(0, 0)))
    np.testing.assert_allclose(other, alone, atol=1e-6)
    np.testing.assert_allclose(
        alone[:, :, -1], prefill(view, COMPLETIONS.reshape(4, 4), used(4, 4, 4, 4))[0].reshape(2, 2, 32), atol=2e-5
    )


def test_a_stacked_cache_takes_several_tokens_at_once(policy, hidden):
    _, prefix = prefill(policy, PROMPTS, LENGTHS)
    cache = decoder.new_cache(policy, prefix, 2, 7)
    first, cache = extend(policy, COMPLETIONS[:, :, :2], prefix, cache, used([0, 0], [0, 0]))
    second, _ = extend(policy, COMPLETIONS[:, :, 2:], prefix, cache, used([2, 2], [2, 2]))
    np.testing.assert_allclose(np.concatenate([first, second], axis=2), hidden[:, :, 1:], atol=2e-5)


def test_garbage_in_padding_and_neighbors_has_no_effect(policy, hidden):
    prompts = np.pad(PROMPTS, ((0, 0), (0, 3)), constant_values=99)
    prompts[1, 3:5] = 98
    prompts[0] = 97
    completions = COMPLETIONS.copy()
    completions[1, 0] = 96
    completions[1, 1, 3] = 95
    changed = forward(policy, prompts, np.array([8, 3], np.int32), completions)
    np.testing.assert_allclose(changed[1, 1, :4], hidden[1, 1, :4], atol=1e-5)
    assert np.abs(changed[1, 1, 4] - hidden[1, 1, 4]).max() > 0.1


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_no_gradient_and_keeps_less(policy, remat):
    def loss(policy):
        return (decoder.prefill(policy, PROMPTS, LENGTHS)[0] ** 3).sum()

    def kept(policy):
        """Numbers that the forward pass hands to the backward pass."""
        return sum(x.size for x in jax.tree.leaves(jax.eval_shape(lambda p: jax.vjp(loss, p)[1], policy)))

    def with_remat(name):
        changed = jax.tree.map(lambda x: x, policy)
        changed.remat = name
        return changed

    other, everything = with_remat(remat), with_remat("none")
    if remat == "dots":
        assert kept(with_remat("full")) < kept(other) < kept(everything)
    grad = jax.jit(jax.grad(loss))
    for a, b in zip(jax.tree.leaves(grad(other)), jax.tree.leaves(grad(everything)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_a_width_that_does_not_halve_is_decoded_on_cpu(make_policy, make_layout):
    """On CPU the weights that lead back to the width are two parts, here of 17 and 16 features."""
    policy = make_policy(width=33)
    logits = decoder.unembed(policy, forward(policy, PROMPTS, LENGTHS, COMPLETIONS))
    with make_layout("1x1").active():
        view = jax.jit(partial(decoder.sampling_view, dtype=jnp.float32))(policy)
        assert [half.shape[0] for half in view.layers[0].down] == [17, 16]
        decoded = decoder.unembed(view, forward(view, PROMPTS, LENGTHS, COMPLETIONS))
    np.testing.assert_allclose(decoded, logits, atol=2e-4)


def test_sampling_view_casts_and_keeps_axis_names(policy):
    view = jax.jit(partial(decoder.sampling_view, dtype=jnp.bfloat16))(policy)
    assert {x.dtype for x in jax.tree.leaves(view)} == {jnp.dtype("bfloat16")}
    assert view.layers[1].query.axes == ("heads", "head_dim", "embed")
    np.testing.assert_array_equal(view.layers[1].down[...], policy.layers.down[...][1].T.astype(jnp.bfloat16))

    def run(view):
        last, prefix = decoder.prefill(view, PROMPTS, LENGTHS)
        cache = decoder.new_cache(view, prefix, 2, 4)
        hidden, cache = decoder.extend(view, COMPLETIONS, prefix, cache, used([0, 0], [0, 0]))
        return last, hidden, cache.layers, decoder.unembed(view, hidden)

    *parts, logits = jax.eval_shape(run, view)
    assert {x.dtype for x in jax.tree.leaves(parts)} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32
