"""A KL penalty off the reward: the advantages that it makes, against formulas in numpy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.config import AlgorithmConfig, Config, TrainConfig
from igrpo_jax.learning.learner import Learner
from igrpo_jax.learning.logprobs import completion_logprobs
from igrpo_jax.learning.penalty import with_penalty
from igrpo_jax.learning.updates import update
from igrpo_jax.rewards import Scores
from igrpo_jax.rollout import Rollout, Stage
from igrpo_jax.types import DRAFT, REFINE, Samples, Usage
from models import decoder

pytestmark = pytest.mark.usefixtures("quick_compile")

TRAIN = TrainConfig(steps=10, micro_batch=3, logprob_chunk=64)
RLOO = AlgorithmConfig(
    num_generations=3, beta=0.1, kl_in="reward", kl_estimator="k1", baseline="leave_one_out", scale_rewards="none",
    loss_type="dr_grpo",
)  # fmt: skip
PROMPTS = [[1, 2], [3], [4]]
LENGTH = {DRAFT: 3, REFINE: 5}.get
KEYWORDS = {"prompt_length": LENGTH}


def stage(number, rewards):
    """3 problems with 3 samples of up to 4 tokens."""
    random = np.random.default_rng(number)
    lengths = random.integers(1, 5, (3, 3)).astype(np.int32)
    tokens = random.integers(3, 250, (3, 3, 4)).astype(np.int32)
    samples = Samples(tokens, lengths, lengths < 4, np.full((3, 3, 4), -5, np.float32))
    scores = Scores(np.zeros(9, np.float32), {}, [None] * 9, [], np.zeros(9, int), np.zeros(9, int))
    rewards = np.array(rewards, np.float32)
    return Stage(number, PROMPTS, [None] * 3, samples, rewards, scores, np.zeros((3, 3), np.float32), np.zeros(3, int))


REWARDS = [[1, 0, 0], [1, 1, 1], [0, 0.5, 2]]
EXPERIENCE = Rollout([], [stage(DRAFT, REWARDS), stage(REFINE, REWARDS)], Usage(1, 1, {1: 1.0}, 0.0))


def logprobs(policy, stage):
    """Of a stage's completions at temperature 0.7, without micro-batches, 0 past each length."""
    length = LENGTH(stage.number)
    prompts = np.array([prompt + [0] * (length - len(prompt)) for prompt in PROMPTS], np.int32)
    lengths = np.array([len(prompt) for prompt in PROMPTS], np.int32)
    found = completion_logprobs(
        decoder, policy, jnp.array(prompts), jnp.array(lengths), jnp.array(stage.samples.tokens),
        temperature=jnp.float32(0.7), chunk=64,
    ).logprobs  # fmt: skip
    return np.where(np.arange(4) < stage.samples.lengths[..., None], np.asarray(found, np.float64), 0)


def penalized(algorithm, policy, reference, layout):
    config = Config(train=TRAIN, algorithm=algorithm)
    learner = Learner(decoder, layout, config, jax.eval_shape(lambda: policy), dtype="float32")
    place = lambda tree: jax.device_put(jax.tree.map(jnp.copy, tree), learner.shardings.params)
    with layout.active(), jax.transfer_guard("disallow"):
        return with_penalty(learner, place(policy), place(reference), EXPERIENCE, config=config, **KEYWORDS)


@pytest.mark.parametrize("mesh", ["1x1", "4x2"])
def test_rloo_with_its_penalty_as_published(make_policy, make_layout, mesh):
    """R(y) - β Σ_t log(π/π_ref), against the mean of the others' (arXiv 2402.14740, and TRL's RLOOTrainer)."""
    policy, reference = make_policy(), make_policy(seed=1)
    found, metrics = penalized(RLOO, policy, reference, make_layout(mesh))
    last = EXPERIENCE.stages[-1]
    kl = (logprobs(policy, last) - logprobs(reference, last)).sum(axis=2)
    values = np.array(REWARDS) - 0.1 * kl
    expected = [[r - (sum(group) - r) / 2 for r in group] for group in values]
    np.testing.assert_allclose(found.stages[-1].advantages, expected, atol=1e-4)
    assert (np.abs(found.stages[-1].advantages[1]) > 1e-3).all()  # equal rewards have spread now
    assert metrics["kl"] == pytest.approx(kl.sum() / last.samples.lengths.sum(), abs=1e-4)
    np.testing.assert_array_equal(found.stages[-1].rewards, REWARDS)
    assert found.stages[0] is EXPERIENCE.stages[0]  # of no consequence, as drafts are not trained on


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_other_estimators_and_drafts_that_are_trained_on(policy, make_policy, make_layout, estimator):
    algorithm = AlgorithmConfig(
        num_drafts=3, num_generations=3, beta=0.02, kl_in="reward", kl_estimator=estimator, draft_weight=0.5,
        scale_rewards="batch", mask_truncated=True,
    )  # fmt: skip
    reference = make_policy(seed=1)
    found, _ = penalized(algorithm, policy, reference, make_layout("1x1"))
    for before, after in zip(EXPERIENCE.stages, found.stages, strict=True):
        x = logprobs(reference, before) - logprobs(policy, before)
        sums = (x**2 / 2 if estimator == "k2" else np.exp(x) - x - 1).sum(axis=2)  # of truncated ones, too
        values = np.array(REWARDS) - 0.02 * sums
        expected = (values - values.mean(axis=1, keepdims=True)) / values.std()
        np.testing.assert_allclose(after.advantages, expected, atol=2e-4)


def test_the_update_that_follows_has_no_penalty_of_its_own_and_leaves_no_spread_out(policy, make_layout):
    """Under equal policies the penalty is 0, and groups of equal rewards are dead as ever."""
    config = Config(train=TRAIN, algorithm=replace(RLOO, kl_estimator="k3"))
    learner = Learner(decoder, make_layout("1x1"), config, jax.eval_shape(lambda: policy), dtype="float32")
    reference = jax.device_put(jax.tree.map(jnp.copy, policy), learner.shardings.params)
    state = learner.init(jax.device_put(jax.tree.map(jnp.copy, policy), learner.shardings.params))
    with jax.transfer_guard("disallow"):
        found, told = with_penalty(learner, state.params, reference, EXPERIENCE, config=config, **KEYWORDS)
        state, metrics = update(learner, state, found, config=config, step=0, reference=reference, **KEYWORDS)
    assert told["kl"] == 0 and metrics["kl"] == 0
    assert metrics["update/dead_fraction"] == pytest.approx(1 / 3) and metrics["update/skipped"] == 0
