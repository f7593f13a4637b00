"""The updates on a rollout: what is skipped, what is reported, and that nothing is compiled later."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.config import AlgorithmConfig, Config, OptimConfig, TrainConfig
from igrpo_jax.learning.gradients import GAP
from igrpo_jax.learning.learner import NONFINITE, Learner
from igrpo_jax.learning.penalty import with_penalty
from igrpo_jax.learning.updates import update
from igrpo_jax.records.machine.compiles import counting_compiles
from igrpo_jax.rewards import Scores
from igrpo_jax.rollout import Rollout, Stage
from igrpo_jax.types import DRAFT, REFINE, Samples, Usage
from models import decoder

pytestmark = pytest.mark.usefixtures("quick_compile")

CONFIG = Config(
    train=TrainConfig(steps=10, micro_batch=2, logprob_chunk=64),
    algorithm=AlgorithmConfig(draft_weight=0.5, num_iterations=2),
)


def stage(number, advantages, lengths, size=4):
    """3 problems with 2 samples."""
    lengths = np.broadcast_to(np.array(lengths, np.int32), (3, 2))
    tokens = np.random.default_rng(number).integers(0, 256, (3, 2, size)).astype(np.int32)
    logprobs = np.full((3, 2, size), -5, np.float32)
    samples = Samples(tokens, lengths, np.ones((3, 2), bool), logprobs)
    scores = Scores(np.zeros(6, np.float32), {}, [None] * 6, [], 0, 0)
    rewards = np.zeros((3, 2), np.float32)
    shares = np.array(advantages, np.float32)
    return Stage(number, [[1, 2], [3], [4]], [None] * 3, samples, rewards, scores, shares, copied=np.zeros(3, int))


def experience(refinements, drafts, lengths=4):
    made = [stage(DRAFT, drafts, lengths), stage(REFINE, refinements, lengths)]
    return Rollout([], made, Usage(1, 1, {1: 1.0}, 0.0))


DEAD, ONE, TWO = [[0, 0]] * 3, [[0, 0], [1, -1], [0, 0]], [[1, -1], [1, -1], [0, 0]]


@pytest.fixture(scope="module")
def learner(make_layout, policy):
    return Learner(decoder, make_layout("1x1"), CONFIG, jax.eval_shape(lambda: policy), dtype="float32")


def test_updates(learner, policy):
    def run(state, experience):
        with jax.transfer_guard("disallow"), counting_compiles() as compiles:
            state, metrics = update(
                learner, state, experience, config=CONFIG, prompt_length={DRAFT: 3, REFINE: 6}.get, step=3,
                reference=None,
            )  # fmt: skip
        return state, metrics, compiles.count

    state = learner.init(jax.device_put(jax.tree.map(jnp.copy, policy), learner.shardings.params))
    same, metrics, compiled = run(state, experience(DEAD, DEAD))
    assert same is state
    assert metrics == {"learning_rate": metrics["learning_rate"], "update/dead_fraction": 1.0, "update/skipped": 1.0}
    assert 0 < metrics["learning_rate"] < 1e-6
    assert compiled > 0  # already everything that later steps need

    state, metrics, compiled = run(state, experience(DEAD, ONE))
    assert compiled == 0
    assert metrics["update/dead_fraction"] == pytest.approx(5 / 6) and metrics["update/skipped"] == 0
    assert metrics["grad_norm"] > 0 and "entropy" not in metrics  # of refinements, of which none was computed

    state, metrics, compiled = run(state, experience(TWO, ONE, lengths=[[4, 3], [2, 1], [4, 4]]))
    assert compiled == 0
    assert metrics["update/dead_fraction"] == 0.5 and metrics["entropy"] > 0
    # Prompts of 2 and 1 tokens in 6, one of 1 in 3; completions of 4 tokens in pairs.
    assert metrics["train/padding_fraction"] == pytest.approx(1 - (2 + 1 + 7 + 3 + 1 + 3) / (2 * 6 + 3 + 3 * 8))


def test_metrics_are_of_all_iterations_but_the_sampler_is_compared_with_its_own_policy(policy, make_layout):
    def metrics_of(iterations):
        config = replace(
            CONFIG, algorithm=AlgorithmConfig(num_iterations=iterations), optim=OptimConfig(learning_rate=0.1)
        )
        learner = Learner(decoder, make_layout("1x1"), config, jax.eval_shape(lambda: policy), dtype="float32")
        state = learner.init(jax.device_put(jax.tree.map(jnp.copy, policy), learner.shardings.params))
        rollout = experience(TWO, DEAD)
        return update(
            learner, state, rollout, config=config, prompt_length={REFINE: 6}.get, step=3, reference=None
        )[1]  # fmt: skip

    once, twice = metrics_of(1), metrics_of(2)
    assert twice["train/tokens"] == 2 * once["train/tokens"] > 0
    for name in ("mean", "max"):
        assert twice[f"{GAP}/{name}"] == pytest.approx(once[f"{GAP}/{name}"], rel=1e-5) and once[f"{GAP}/{name}"] > 0
    assert abs(twice["entropy"] - once["entropy"]) > 1e-3  # the second iteration's is another


def test_a_single_micro_batch_gives_the_gradient_without_a_sum(policy, make_layout):
    """The same step, whether the program adds to an earlier gradient or makes the only one."""
    results = []
    for rows in (2, 8):
        config = replace(CONFIG, train=replace(CONFIG.train, micro_batch=rows), algorithm=AlgorithmConfig())
        learner = Learner(decoder, make_layout("1x1"), config, jax.eval_shape(lambda: policy), dtype="float32")
        state = learner.init(jax.device_put(jax.tree.map(jnp.copy, policy), learner.shardings.params))
        keywords = {"config": config, "prompt_length": lambda stage: 8, "step": 0, "reference": None}
        results.append(update(learner, state, experience(TWO, DEAD), **keywords))
    (state, metrics), (other, same) = results
    assert metrics.pop("train/padding_fraction") < same.pop("train/padding_fraction")  # a dead row fills up the latter
    assert metrics == pytest.approx(same, rel=1e-5, abs=1e-6)
    assert metrics["update/dead_fraction"] == pytest.approx(1 / 3)
    for a, b in zip(jax.tree.leaves(state.moments), jax.tree.leaves(other.moments), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def fresh(policy, make_layout, **changes):
    """A learner with such a config, and a state of its own."""
    config = replace(CONFIG, **changes)
    learner = Learner(decoder, make_layout("1x1"), config, jax.eval_shape(lambda: policy), dtype="float32")
    state = learner.init(jax.device_put(jax.tree.map(jnp.copy, policy), learner.shardings.params))
    keywords = {"config": config, "prompt_length": lambda stage: 8, "step": 9, "reference": None}
    return learner, state, keywords


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38], ids=["NaN", "infinite", "a gradient that overflows"])
def test_a_loss_or_gradient_that_is_not_finite_changes_nothing_and_is_counted(bad, policy, make_layout):
    learner, state, keywords = fresh(policy, make_layout)
    state, _ = update(learner, state, experience(TWO, DEAD), **keywords)  # moments and their count are not zero
    before = jax.tree.map(np.array, state)
    broken = [[bad, -bad], [1, -1], [0, 0]]
    state, metrics = update(learner, state, experience(broken, DEAD), **keywords)
    assert metrics[NONFINITE] == CONFIG.algorithm.num_iterations and metrics["update/skipped"] == 0
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    state, metrics = update(learner, state, experience(TWO, DEAD), **keywords)
    assert metrics[NONFINITE] == 0 and np.isfinite(metrics["grad_norm"])
    moved = [np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state), strict=True)]
    assert all(moved)


def test_weights_that_are_not_finite_after_a_finite_gradient_end_the_run(policy, make_layout):
    optim = OptimConfig(learning_rate=3e38, weight_decay=1.0, warmup_ratio=0.0, final_lr_ratio=1.0)
    learner, state, keywords = fresh(policy, make_layout, optim=optim)
    with pytest.raises(
        ValueError, match=r"step 10 has made weights or moments infinite or NaN.*nothing of it is saved"
    ):
        update(learner, state, experience(TWO, DEAD), **keywords)


def without(rollout, kept):
    """The rollout with some of its problems alone."""

    def part(stage):
        samples = Samples(*(x[np.array(kept, int)] for x in stage.samples))
        rewards, shares = stage.rewards[: len(kept)], stage.advantages[np.array(kept, int)]
        return stage._replace(
            prompts=[stage.prompts[p] for p in kept], samples=samples, rewards=rewards, advantages=shares
        )

    return rollout._replace(stages=[part(stage) for stage in rollout.stages])


def test_problems_that_a_step_has_too_few_count_like_groups_without_spread(policy, make_layout):
    """The third problem's groups are dead; so are they if there is no such problem."""
    results = []
    for rollout in (experience(TWO, ONE), without(experience(TWO, ONE), [0, 1])._replace(missing=1)):
        learner, state, keywords = fresh(policy, make_layout)
        results.append(update(learner, state, rollout, **keywords))
    (state, metrics), (other, same) = results
    assert metrics == pytest.approx(same, rel=1e-5, abs=1e-6) and metrics["update/dead_fraction"] == 3 / 6
    for a, b in zip(jax.tree.leaves(state.moments), jax.tree.leaves(other.moments), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    with counting_compiles() as compiles:
        update(learner, other, experience(TWO, ONE), **keywords)
    assert compiles.count == 0


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
def test_with_a_penalty_too_few_problems_are_no_other_programs(kl_in, policy, make_layout):
    learner, state, keywords = fresh(policy, make_layout, algorithm=AlgorithmConfig(beta=0.1, kl_in=kl_in))
    reference, found = jax.device_put(jax.tree.map(lambda x: 0.9 * x, policy), learner.shardings.params), []
    scored = {"config": keywords["config"], "prompt_length": keywords["prompt_length"]}
    for kept in ([], [0, 1], [0, 1, 2]):
        rollout = without(experience(TWO, DEAD), kept)._replace(missing=3 - len(kept))
        with counting_compiles() as compiles:
            if kl_in == "reward":
                rollout, penalty = with_penalty(learner, state.params, reference, rollout, **scored)
                assert (penalty["kl"] > 0) == bool(kept)
                found.append(rollout.refinements.advantages[:2])
            state, metrics = update(learner, state, rollout, **keywords | {"reference": reference})
        assert metrics["update/skipped"] == (not kept) and (compiles.count == 0 or not kept)
    if kl_in == "reward":
        assert found[0].shape == (0, 2)
        np.testing.assert_allclose(found[1], found[2], atol=1e-3)  # the policy has moved by a step in between


def test_a_step_without_any_problem_makes_no_update_and_compiles_what_others_need(policy, make_layout):
    learner, state, keywords = fresh(policy, make_layout)
    same, metrics = update(learner, state, without(experience(TWO, ONE), [])._replace(missing=3), **keywords)
    assert same is state and metrics["update/skipped"] == metrics["update/dead_fraction"] == 1.0
    with counting_compiles() as compiles:
        update(learner, state, experience(TWO, ONE), **keywords)
    assert compiles.count == 0
