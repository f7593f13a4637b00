"""How often the sampler draws what, against probabilities by sorting."""

import numpy as np
import pytest
from scipy.stats import chisquare

from igrpo_jax.config import SamplingConfig
from igrpo_jax.records.machine.compiles import counting_compiles
from tests.sampling.chain import END, END_OF_TURN, sampler_of

pytestmark = pytest.mark.usefixtures("quick_compile")

TRUNCATIONS = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.7},
    {"temperature": 1.0, "min_p": 0.3},
    {"temperature": 1.3, "top_k": 8, "top_p": 0.9, "min_p": 0.05},
]


def truncated(logits, *, temperature, top_k=0, top_p=1.0, min_p=0.0):
    """Probabilities in float64 by sorting."""
    p = np.exp(np.float64(logits) / temperature)
    order = np.argsort(-p)
    p[order[top_k or len(p) :]] = 0
    p /= p.sum()
    p[order[np.cumsum(p[order]) - p[order] >= top_p]] = 0
    p[p < min_p * p.max()] = 0
    return p / p.sum()


def test_frequencies_pass_a_chi_square_test_under_every_truncation(one):
    """Both tokens of 4000 completions, the second drawn given the first; one program for all truncations."""
    size, group = 30, 4000
    table = np.random.default_rng(0).normal(0, 1, (size, size)).astype(np.float32)
    table[:, [END, END_OF_TURN]] = -np.inf
    sampler, view = sampler_of(one, lanes=group, slots=1), one.everywhere(table)

    def run(step, **settings):
        settings = SamplingConfig(max_completion_length=2, **settings)
        samples = sampler.complete(view, [[12]], ids=[3], step=step, stage=1, num_samples=group, settings=settings)
        np.testing.assert_array_equal(samples.lengths, 2)
        return samples.tokens[0].T, samples.logprobs[0].T

    run(0, temperature=1.0)
    with counting_compiles() as compiles:
        for step, settings in enumerate(TRUNCATIONS):
            (first, second), logprobs = run(step, **settings)
            p = np.stack([truncated(row, **settings) for row in table])
            np.testing.assert_allclose(logprobs, np.log([p[12, first], p[first, second]]), atol=1e-5)
            expected = group * (p[12][:, None] * p).ravel()
            bins = np.where(expected >= 5, np.arange(size**2), size**2)  # rare pairs share the last bin
            counts = np.bincount(bins[first * size + second], minlength=size**2 + 1)
            expected = np.bincount(bins, expected, minlength=size**2 + 1)
            assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-3, settings
        (first, second), _ = run(0, temperature=0.0)
    assert compiles.count == 0
    assert (first == table[12].argmax()).all()
    assert (second == table[table[12].argmax()].argmax()).all()
