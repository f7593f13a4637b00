"""Random combinations of all variants of the algorithm, each for one step of configs/smoke.py.

What a step reports is compared with the formulas of docs/variants.md, written out here in float64 for whole batches.
"""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.smoke import get_config
from igrpo_jax.config import AlgorithmConfig, OptimConfig
from igrpo_jax.drive import Draft, with_overlong
from igrpo_jax.edges.checks import check
from igrpo_jax.learning.learner import Learner
from igrpo_jax.learning.logprobs import completion_logprobs
from igrpo_jax.prompts import pad_prompts
from igrpo_jax.rewards import Scores, load_rewards
from igrpo_jax.train import train_step
from jobs.parts import assemble, initial_policy, read_data
from models import decoder
from models.formats.load import find

pytestmark = pytest.mark.usefixtures("quick_compile")

# Steps so small that the second of two iterations has the first one's loss.
SMOKE = replace(get_config(), optim=OptimConfig(learning_rate=1e-8), train=replace(get_config().train, steps=1))
# What counts as right is the first function's; few completions have ended.
SMOKE = replace(SMOKE, reward=replace(SMOKE.reward, functions=SMOKE.reward.functions[::-1]))
SMOKE = replace(SMOKE, sampling=replace(SMOKE.sampling, temperature=0.8), data=replace(SMOKE.data, eval=()))

CHOICES = {
    "loss_type": ("grpo", "dr_grpo", "dapo", "gspo", "cispo"),
    "epsilon": (0.2, 1.0),
    "epsilon_high": (None, 0.28),
    "num_iterations": (1, 1, 2),
    "beta": (0.0, 0.0, 0.05),
    "kl_estimator": ("k1", "k2", "k3"),
    "kl_in": ("loss", "reward"),
    "baseline": ("group", "leave_one_out"),
    "scale_rewards": ("group", "batch", "none"),
    "mask_truncated": (False, True),
    "overlong_buffer": (0, 6),
    "draft_weight": (0.0, 0.5),
    "num_drafts": (0, 2, 2, 2),
    "select": ("best", "best", "worst", "random", "none", "wrong_first"),
    "tie_break": ("random", "first", "shortest", "longest"),
    "rounds": (1, 1, 2),
    "skip_solved": (False, False, True),
    "dynamic_sampling": (False, True),
    "extra_problems": (0.0, 1.0),
    "replay": (0.0, 0.0, 0.5),
}
"""What each field may be; a line more is a variant more."""

LEARNED = ("loss_type", "epsilon", "epsilon_high", "num_iterations", "beta", "kl_estimator", "kl_in")
"""Fields that the learner's programs are compiled for."""


def combinations(seed: int, count: int, together: int) -> list[AlgorithmConfig]:
    """So many random ones that are legal, the kinds of loss in turn; so many together that need no other programs."""
    random, found, kept = np.random.default_rng(seed), [], {}
    while len(found) < count:
        drawn = {name: values[random.integers(len(values))] for name, values in CHOICES.items()}
        drawn["loss_type"] = CHOICES["loss_type"][len(found) // together % 5]
        if len(found) % together:
            drawn |= kept
        kept = {name: drawn[name] for name in LEARNED}
        algorithm = AlgorithmConfig(num_generations=4, **drawn)
        try:
            check(replace(SMOKE, algorithm=algorithm))
        except ValueError:
            continue
        found.append(algorithm)
    return found


@pytest.fixture(scope="module")
def step(make_layout):
    """`step(algorithm)`: what one step makes of the tiny policy, and log-probabilities of its completions."""
    layout = make_layout("1x1")
    found = find(SMOKE.model.source)
    with layout.active(), load_rewards(SMOKE.reward) as reward:
        more = replace(SMOKE, algorithm=AlgorithmConfig(skip_solved=True, extra_problems=1.0))
        run = assemble(SMOKE, layout, found, reward, read_data(more, layout, found))
        run = run._replace(shapes=run.shapes._replace(prompt=run.shapes.refinement))  # drafts need no other programs
        past = {problem.id: Draft(1, 0, [7, 7], 9.0, True, 1) for problem in run.batches(0)[::2]}
        params = initial_policy(SMOKE, layout, found)
        other = initial_policy(replace(SMOKE, seed=1), layout, found)

        @cache
        def learner(algorithm):
            config = replace(SMOKE, algorithm=algorithm)
            return Learner(decoder, layout, config, jax.eval_shape(lambda: params), dtype="float32")

        @jax.jit
        def scored(policy, *arrays):
            temperature = jnp.float32(SMOKE.sampling.temperature)
            return completion_logprobs(decoder, policy, *arrays, temperature=temperature, chunk=64).logprobs

        def logprobs(policy, stage):
            count, tokens = len(stage.prompts), stage.samples.tokens
            fill = SMOKE.train.problems_per_step - count  # one program for any number of problems
            prompts = pad_prompts([*stage.prompts, *[[0]] * fill], run.shapes.refinement)
            tokens = np.concatenate([tokens, np.zeros((fill, *tokens.shape[1:]), np.int32)])
            arrays = [jnp.array(x) for x in (*prompts, tokens)]
            own = np.arange(tokens.shape[2]) < stage.samples.lengths[..., None]
            return np.where(own, np.asarray(scored(policy, *arrays), np.float64)[:count], 0)

        def once(algorithm):
            mine = learner(AlgorithmConfig(**{name: getattr(algorithm, name) for name in LEARNED}))
            mine_run = run._replace(learner=mine, config=replace(SMOKE, algorithm=algorithm))
            state = mine.init(jax.tree.map(jnp.copy, params))
            state, metrics, experience = train_step(mine_run, state, 0, other if algorithm.beta else None, past=past)
            moved = any(np.any(x) for x in jax.tree.leaves(state.moments[1].mu))
            trained = [experience.stages[-1]]
            if len(experience.stages) > 1 and algorithm.draft_weight:
                trained.append(experience.stages[0])
            terms = [(s, logprobs(params, s), logprobs(other, s)) for s in trained if len(s.rewards)]
            return metrics, moved, experience, terms

        yield once


def estimates(algorithm, ours, theirs):
    x = theirs - ours
    return {"k1": -x, "k2": x**2 / 2, "k3": np.exp(x) - x - 1}[algorithm.kl_estimator]


def advantages(algorithm, rewards):
    """Of each reward among its group's, one by one."""
    found = np.zeros(rewards.shape)
    for p, g in np.ndindex(rewards.shape):
        group = list(rewards[p])
        if len(set(group)) == 1:
            continue
        others = group[:g] + group[g + 1 :]
        against = np.mean(group if algorithm.baseline == "group" else others)
        spread = {"group": np.std(group), "batch": np.std(rewards), "none": 1.0}[algorithm.scale_rewards]
        found[p, g] = (group[g] - against) / spread
    return found


def expected(algorithm, missing, stage, ours, theirs):
    """A stage's loss and KL on policy, and whether anything has a gradient; missing problems have their share."""
    lengths, size = stage.samples.lengths, stage.samples.tokens.shape[2]
    kl = estimates(algorithm, ours, theirs) * (algorithm.beta > 0)
    in_loss = algorithm.kl_in == "loss"
    rewards = stage.rewards.astype(np.float64) - (0 if in_loss else algorithm.beta * kl.sum(axis=2))
    kept = stage.samples.ended | (not algorithm.mask_truncated)
    own = (np.arange(size) < lengths[..., None]) & kept[..., None]
    count = lengths.size + missing * lengths.shape[1]
    divisor = {
        "grpo": count * lengths[..., None], "gspo": count * lengths[..., None],
        "dr_grpo": count * size, "dapo": max(own.sum(), 1), "cispo": max(own.sum(), 1),
    }[algorithm.loss_type]  # fmt: skip
    gain = own * advantages(algorithm, rewards)[..., None]
    value = gain * ours if algorithm.loss_type == "cispo" else gain
    penalty = own * kl * in_loss
    alive = bool((gain != 0).any()) or (in_loss and algorithm.beta > 0 and own.any())
    loss = (-value / divisor).sum() + algorithm.beta * (penalty / divisor).sum()
    return loss, (penalty / divisor).sum() if in_loss else kl.sum() / lengths.sum(), alive


def chosen(algorithm, metrics, experience):
    """Asserts what is said of the choice of problems and drafts."""
    last, first = experience.refinements, (experience.sampled or experience.stages)[0]
    assert len(experience.problems) + experience.missing == 8
    if algorithm.dynamic_sampling:
        assert (last.rewards.std(axis=1) > 0).all()
    if algorithm.skip_solved:
        assert not experience.drafts.scores.right()[1].reshape(-1, algorithm.num_drafts).all(axis=1).any()
    if algorithm.dynamic_sampling or algorithm.skip_solved:
        assert metrics["sampling/extra_problems"] == len(first.rewards) - 8 <= 8 * algorithm.extra_problems
    else:
        assert experience.missing == 0 and "sampling/extra_problems" not in metrics
    replayed = [draft for draft in last.drafts if draft and draft.step]
    assert algorithm.replay or not replayed


@pytest.mark.parametrize(("count", "together"), [(1, 1), pytest.param(50, 3, marks=pytest.mark.slow)])
def test_random_combinations(step, count, together):
    made = combinations(count, count, together)
    assert len(set(made)) == count
    for algorithm in made:
        metrics, moved, experience, terms = step(algorithm)
        assert all(np.isfinite(value) for value in metrics.values()), (algorithm, metrics)
        values = [expected(algorithm, experience.missing, *term) for term in terms]
        alive = any(one[2] for one in values)
        assert (metrics["update/skipped"], moved) == (float(not alive), alive), algorithm
        stage = experience.refinements
        assert ("overlong" in stage.scores.each) == (algorithm.overlong_buffer > 0)
        np.testing.assert_allclose(stage.rewards.reshape(-1), sum(stage.scores.each.values()), atol=1e-6)
        if alive:
            loss = values[0][0] + sum(algorithm.draft_weight * one[0] for one in values[1:])
            assert metrics["loss"] == pytest.approx(loss, rel=2e-3, abs=2e-4), algorithm
        chosen(algorithm, metrics, experience)
        if values and values[0][2]:
            assert metrics["kl"] == pytest.approx(values[0][1], rel=1e-3, abs=1e-4), algorithm


def test_an_overlong_completion_costs_a_reward_of_its_own():
    def reward(prompts, completions, columns):
        accuracy = np.array([1.0, 1.0, 0.0], np.float32)
        return Scores(accuracy, {"accuracy": accuracy}, [None] * 3, [""] * 3, np.zeros(3, int), np.zeros(3, int))

    columns = {"completion_ids": [[7] * 6, [7] * 9, [7] * 10]}
    scores = with_overlong(reward, limit=10, buffer=4)(["q"] * 3, ["a"] * 3, columns)
    np.testing.assert_array_equal(scores.total, [1.0, 0.25, -1.0])
    np.testing.assert_array_equal(scores.each["overlong"], [0.0, -0.75, -1.0])
    assert scores.right()[1].tolist() == [True, True, False]
    assert with_overlong(reward, limit=10, buffer=0) is reward


def test_every_field_of_the_algorithm_is_varied():
    fields = set(AlgorithmConfig.__dataclass_fields__) - {"num_generations"}
    assert fields == CHOICES.keys()
