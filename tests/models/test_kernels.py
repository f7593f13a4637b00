"""Flash attention against plain XLA: TPU's kernel interpreted, cuDNN's rows through JAX's reference, and on meshes."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models import attention, decoder, kernels
from models.attention import Own, Prompt, attend
from models.decoder import Decoder
from models.presets import PRESETS
from sharding.layout import Layout
from sharding.mesh import make_mesh

closed_up = partial(kernels.cudnn, implementation="xla")


def inputs(p=2, g=2, t=200, length=150, n=4, k=2, h=16):
    normal = np.random.default_rng(0).standard_normal
    make = lambda *shape: jnp.asarray(normal(shape), jnp.float32)
    lengths = np.linspace(1, length, p).astype(np.int32)
    prompt = Prompt(make(p, k, h, length), make(p, k, length, h), lengths)
    return make(p, g, t, n, h), prompt, Own(make(p * g, k, h, t), make(p * g, k, t, h), None)


def found_and_gradients(queries, prompt, own):
    """Attention, and gradients of a sum of it by everything that has one."""

    def loss(queries, kept, own):
        given = None if prompt is None else Prompt(*kept, prompt.lengths)
        out = attend(queries, given, Own(*own, None))
        return jnp.sum(jnp.sin(out)), out

    kept = () if prompt is None else prompt[:2]
    (_, out), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(queries, kept, own[:2])
    return [out, *jax.tree.leaves(gradients)]


def through(monkeypatch, kernel, mesh, *arrays):
    """The same with the kernel, on a mesh; says whether the kernel was taken."""
    taken = []
    monkeypatch.setattr(attention, "find", lambda *_: lambda *rows: taken.append(1) or kernel(*rows))
    with Layout(mesh).active():
        return found_and_gradients(*arrays), bool(taken)


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t", [200, 640])
@pytest.mark.parametrize("with_prompt", [True, False])
@pytest.mark.parametrize("kernel", ["splash", "closed_up"])
def test_kernels_equal_plain_attention(monkeypatch, kernel, with_prompt, t):
    queries, prompt, own = inputs(t=t)
    prompt = prompt if with_prompt else None
    expected = found_and_gradients(queries, prompt, own)
    one = make_mesh("1x1", jax.devices()[:1])
    call = partial(kernels.splash, interpret=True) if kernel == "splash" else closed_up
    found, taken = through(monkeypatch, call, one, queries, prompt, own)
    assert taken
    assert_close(found, expected)


@pytest.mark.parametrize("mesh", ["8x1", "4x2", "2x2x2", "2x4"])
def test_on_a_mesh_every_device_attends_to_its_own(monkeypatch, mesh):
    arrays = inputs(p=8, n=8, k=4)
    found, taken = through(monkeypatch, closed_up, make_mesh(mesh), *arrays)
    assert taken
    assert_close(found, found_and_gradients(*arrays))


def test_key_heads_that_the_mesh_does_not_divide_are_left_to_plain_attention(monkeypatch):
    arrays = inputs(p=8, n=8, k=2)
    found, taken = through(monkeypatch, closed_up, make_mesh("2x4"), *arrays)
    assert not taken
    assert_close(found, found_and_gradients(*arrays))


def test_cached_and_short_completions_are_left_to_plain_attention(monkeypatch):
    one = make_mesh("1x1", jax.devices()[:1])
    assert not through(monkeypatch, closed_up, one, *inputs(t=attention.BLOCK))[1]
    queries, prompt, own = inputs()
    monkeypatch.setattr(attention, "find", None)  # would fail if it were called
    with Layout(one).active(flash=False):
        attend(queries, prompt, own)
    with Layout(one).active():
        attend(queries, prompt, own._replace(visible=jnp.ones((2, 2, 200, 200), bool)))


def test_platforms_have_kernels_for_what_they_can_take():
    tpu, planned = SimpleNamespace(platform="tpu"), SimpleNamespace(platform="cuda")
    a100, v100, amd = (SimpleNamespace(platform="gpu", compute_capability=c) for c in ("8.0", "7.0", "gfx942"))
    assert kernels.find(tpu, jnp.float32, 64) is kernels.splash
    assert kernels.find(a100, jnp.bfloat16, 128) is kernels.find(planned, jnp.float16, 64) is kernels.cudnn
    for refused in [(a100, jnp.float32, 64), (planned, jnp.bfloat16, 256), (a100, jnp.bfloat16, 60)]:
        assert kernels.find(*refused) is None
    for other in (v100, amd, jax.devices()[0]):
        assert kernels.find(other, jnp.bfloat16, 64) is None


def test_splash_lowers_for_tpu():
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((2, 256, 4, 128), (2, 456, 2, 128), (2, 456, 2, 128))
    ]
    lengths = jax.ShapeDtypeStruct((2,), jnp.int32)
    gradient = jax.jit(jax.grad(lambda *x: kernels.splash(*x).astype(jnp.float32).sum(), (0, 1, 2)))
    text = gradient.trace(*shapes, lengths).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") >= 3  # forward, and backward for queries and for keys


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_a_policys_gradients_are_the_same_with_a_kernel(monkeypatch, remat):
    """Over prompts and completions, recomputed layers, and a mesh that splits rows, widths and heads."""
    policy = Decoder(PRESETS["tiny"], nnx.Rngs(0), remat=remat)
    random = np.random.default_rng(1)
    prompts, completions = random.integers(0, 264, (4, 140)), random.integers(0, 264, (4, 2, 150))
    lengths = np.array([140, 3, 77, 130], np.int32)

    def loss(policy):
        _, prefix = decoder.prefill(policy, prompts, lengths)
        hidden, _ = decoder.extend(policy, completions, prefix)
        return jnp.mean(jnp.sin(decoder.unembed(policy, hidden)))

    expected = jax.jit(jax.grad(loss))(policy)
    taken = []
    monkeypatch.setattr(attention, "find", lambda *_: lambda *rows: taken.append(1) or closed_up(*rows))
    with Layout(make_mesh("2x2x2")).active():
        found = jax.jit(jax.grad(loss))(policy)
    assert taken
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(("size", "block"), [(64, 128), (640, 128), (1024, 512), (4096, 512), (4000, 512), (700, 256)])
def test_blocks_are_large_where_that_costs_little_padding(size, block):
    assert kernels._block(size) == block
