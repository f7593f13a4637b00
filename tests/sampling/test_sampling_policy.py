"""The sampler on a tiny decoder: it is the trainer's policy, and nothing around a completion has an effect on it."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.config import SamplingConfig
from igrpo_jax.learning.logprobs import completion_logprobs
from igrpo_jax.prompts import pad_prompts
from igrpo_jax.records.machine.compiles import counting_compiles
from igrpo_jax.sampling import flight
from igrpo_jax.sampling.decoding import Limits
from igrpo_jax.sampling.draw import Truncation
from igrpo_jax.sampling.programs import Pool, Programs, make_pool, padded_stops
from igrpo_jax.sampling.sampler import Sampler
from models import decoder

pytestmark = pytest.mark.usefixtures("quick_compile")

STOPS = range(60, 66)


def text(ids):
    """Tokens below 128 are characters, the others none."""
    return "".join(chr(i) for i in ids if i < 128)


PROMPTS = [[11, 12, 13, 14, 15], [21, 22], [31, 32, 33]]
LENGTH = 9


@pytest.fixture(scope="module")
def draws(policy):
    """`draws(layout, **pool)(prompts, ...)`: samples of the tiny decoder, one sampler a layout."""

    def on(layout, **sizes):
        view = decoder.sampling_view(policy, jnp.float32)
        view = jax.device_put(view, layout.decode_shardings(view))
        pool = make_pool(
            rows=0, problems=3, groups=(4,), shards=layout.num_row_shards, prompts=(5,), max_completion_length=LENGTH
        )
        sampler = Sampler(decoder, layout, pool=replace(pool, **sizes), seed=0, stop_ids=STOPS, decode=text)

        def run(prompts=PROMPTS, *, ids=(7, 8, 9), step=3, stage=1, num_samples=4, **settings):
            settings = SamplingConfig(**{"max_completion_length": LENGTH, "temperature": 0.8} | settings)
            with layout.active(), jax.transfer_guard("disallow"):
                return sampler.complete(
                    view, prompts, ids=list(ids), step=step, stage=stage, num_samples=num_samples, settings=settings
                )

        return run

    return on


@pytest.fixture(scope="module")
def draw_one(draws, make_layout):
    return draws(make_layout("1x1"))


@pytest.fixture(scope="module")
def drawn(draw_one):
    samples = draw_one()
    assert samples.ended.any()
    assert not samples.ended.all()
    return samples


def same(a, b):
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.lengths, b.lengths)
    np.testing.assert_array_equal(a.ended, b.ended)
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=2e-5)


def test_log_probabilities_equal_the_trainers(policy, drawn):
    prompts, lengths = pad_prompts(PROMPTS, 7)
    scored = jax.jit(partial(completion_logprobs, decoder, chunk=4))(
        policy, prompts, lengths, drawn.tokens, temperature=np.float32(0.8)
    )
    own = np.arange(LENGTH) < drawn.lengths[..., None]
    np.testing.assert_allclose(np.where(own, scored.logprobs, 0), drawn.logprobs, atol=1e-4)
    assert drawn.logprobs[own].max() < 0
    assert drawn.logprobs[own].std() > 0.5


def test_padding_neighbors_and_order_have_no_effect(draws, make_layout, draw_one, drawn):
    same(draws(make_layout("1x1"), prompts=(8,))(), drawn)
    turned = draw_one([PROMPTS[2], [99, 98], PROMPTS[0]], ids=(9, 1, 7))
    row = lambda samples, p: jax.tree.map(lambda x: x[p], samples)
    same(row(turned, 0), row(drawn, 2))
    same(row(turned, 2), row(drawn, 0))


@pytest.mark.parametrize(
    "pool",
    [
        {"slots": 5, "lanes": 1, "prefill": (1, 2), "completions": (3, LENGTH), "prompts": (2, 5)},
        {"slots": 1, "lanes": 3, "prefill": (1,), "tails": ()},
    ],
    ids=str,
)
def test_the_pool_has_no_effect(draws, make_layout, drawn, monkeypatch, pool):
    """Cache sizes, rows in flight, lanes a prompt, prompts prefilled at once: tokens stay what they are."""
    monkeypatch.setattr(flight, "PATIENCE", 2)
    run = draws(make_layout("1x1"), **pool)
    run([[1]], ids=(1,), num_samples=1, max_completion_length=1)
    with counting_compiles() as compiles:
        same(run(), drawn)
        same(run(stop_strings=("\n never",)), drawn)
    assert compiles.count == 0  # the first call, however small, has compiled everything


@pytest.mark.parametrize("mesh", ["8x1", "4x2", "2x4"])
def test_the_mesh_has_no_effect_and_need_not_divide_the_problems(draws, make_layout, drawn, monkeypatch, mesh):
    monkeypatch.setattr(flight, "PATIENCE", 2)
    run = draws(make_layout(mesh), completions=(4, LENGTH), lanes=2)
    same(run(), drawn)
    with counting_compiles() as compiles:
        same(run(stop_strings=("\n never",)), drawn)
    assert compiles.count == 0


def test_every_part_of_the_identity_changes_the_samples(draw_one, drawn):
    same(draw_one(), drawn)
    for change in ({"step": 4}, {"stage": 2}, {"ids": (17, 18, 19)}):
        other = draw_one(**change)
        assert all((other.tokens[p] != drawn.tokens[p]).any(axis=1).sum() >= 3 for p in range(3)), change
    assert len(np.unique(drawn.tokens[0], axis=0)) == 4


def test_new_settings_take_effect_and_compile_nothing(draw_one, drawn):
    column = next(t for t, token in enumerate(drawn.tokens[0, 0].tolist()) if token < 128)
    with counting_compiles() as compiles:
        cold = draw_one(temperature=1e-4)
        hot = draw_one(temperature=3.0)
        nucleus = draw_one(top_p=0.2)
        stopped = draw_one(stop_strings=(text([drawn.tokens[0, 0, column]]),))
        draw_one(step=99, stage=2, ids=(0, 1, 2))
        same(draw_one(), drawn)
    assert compiles.count == 0
    assert (cold.tokens[:, :1] == cold.tokens).all()
    assert hot.logprobs.sum() < drawn.logprobs.sum() < nucleus.logprobs.sum()
    assert stopped.lengths[0, 0] == column + 1
    assert stopped.ended[0, 0]


def test_greedy_equals_a_loop_of_argmax_over_plain_forwards(policy, reference, draw_one):
    samples = draw_one(temperature=0.0)
    for p, prompt in enumerate(PROMPTS):
        tokens = []
        while len(tokens) < LENGTH and not (tokens and tokens[-1] in STOPS):
            tokens.append(int(reference(policy, prompt + tokens)[-1].argmax()))
        for g in range(4):
            assert samples.tokens[p, g, : samples.lengths[p, g]].tolist() == tokens


def test_decoding_repeats_no_work(policy, make_layout):
    """In the compiled loop the caches are donated and written in place, no weight is copied or transposed, and the
    angles of a position are computed once, not in every layer."""
    view = decoder.sampling_view(policy, jnp.float32)
    pool = Pool(slots=3, lanes=5, prefill=(1,), prompts=(11,), completions=(13,))
    programs = Programs(decoder, make_layout("1x1"), pool, view, jax.random.key(0))
    one = np.float32(1), np.int32(0)
    truncation, limits = Truncation(one[0], one[1], one[0], np.float32(0)), Limits(*[one[1]] * 4)
    state = programs.idle(view)
    program = programs.decode.lower(view, truncation, padded_stops([0]), limits, state=state)
    text = program.compile({"xla_backend_optimization_level": 2}).as_text()
    assert text.count("-alias") >= len(jax.tree.leaves(state.cache))
    copied = {tuple(map(int, n.split(","))) for n in re.findall(r"= \w+\[([\d,]+)\]\S* (?:copy|transpose)\(", text)}
    assert copied  # the pattern still fits the text
    sizes = {np.prod(shape) for shape in copied}
    forbidden = {x.size for x in jax.tree.leaves((view, state.cache.layers, state.prefix.layers))} - {32, 8}
    assert not sizes & forbidden
    assert text.count(" cosine(") == 1


def test_making_the_programs_holds_no_more_than_a_run_does(policy, make_layout, monkeypatch):
    """That is two sizes of prefixes or of caches while they grow, and one of the other."""
    view = decoder.sampling_view(policy, jnp.float32)
    pool = Pool(slots=64, lanes=1, prefill=(1,), prompts=(64, 128), completions=(64, 128, 256), tails=(16, 32))
    programs = Programs(decoder, make_layout("1x1"), pool, view, jax.random.key(0))
    held = lambda: sum(x.nbytes for x in jax.live_arrays())
    before, seen = held(), []

    def watched(program):
        def call(*arguments, **named):
            result = program(*arguments, **named)
            seen.append(held() - before)
            return result

        return call

    programs.decode = watched(programs.decode)
    programs._fit = {part: watched(program) for part, program in programs._fit.items()}
    programs._run_all(view, programs.idle(view), jax.random.key(0))
    token = sum(x.nbytes for x in jax.tree.leaves(programs.idle(view).prefix.layers)) // pool.prompts[0]
    assert token * pool.prompts[-1] < max(seen) < token * (64 + 128 + 256 + 128 + 8)
