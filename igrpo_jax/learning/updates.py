"""Trains on one rollout: makes its micro-batches, scores them by other policies where needed, and takes the steps."""

from collections.abc import Callable

import jax
import numpy as np

from igrpo_jax.config import Config
from igrpo_jax.learning.gradients import GAP
from igrpo_jax.learning.learner import NONFINITE, Learner
from igrpo_jax.learning.microbatches import Completions, Portions
from igrpo_jax.learning.optimizer import TrainState, learning_rate
from igrpo_jax.losses import penalized
from igrpo_jax.prompts import pad_prompts
from igrpo_jax.rollout import Rollout, Stage
from igrpo_jax.types import Batch, PyTree


def nothing() -> None:
    """Where nobody waits to interrupt an update."""


def update(
    learner: Learner,
    state: TrainState,
    experience: Rollout,
    *,
    config: Config,
    prompt_length: Callable[[int], int],
    step: int,
    reference: PyTree | None,
    pause: Callable[[], None] = nothing,
) -> tuple[TrainState, dict[str, float]]:
    """Trains on one rollout: `num_iterations` optimizer steps, or none if there is no gradient.

    There is none when all advantages are zero and the loss has no KL penalty; AdamW would still move along its old
    momentum.

    Args:
      learner: the compiled programs.
      state: donated.
      experience: the drafts are trained on too where the config gives them a weight.
      config: the experiment.
      prompt_length: gives the static prompt length of a stage, by its number.
      step: from 0.
      reference: the frozen policy from which a KL penalty in the loss is measured; needed if and only if there is one.
      pause: called between programs as long as the state is whole, that is, before the first step; may raise.

    Returns:
      The new state, and metrics as means over the iterations; but `sampling/logp_difference` is that of the first, and
      `train/tokens` and `update/nonfinite`, steps left out because loss or gradient was not finite, are sums over all.

    Raises:
      ValueError: weights or moments are not finite any more.
    """
    algorithm = config.algorithm
    reference = reference if penalized(algorithm) else None
    lr = learning_rate(step, config.train.steps, config.optim)
    rows = config.train.micro_batch
    missing = experience.missing
    terms = [learner.cut(completions(experience.refinements, prompt_length, config, missing), rows=rows)]
    if experience.drafts is not None and algorithm.draft_weight > 0:
        drafts = completions(experience.drafts, prompt_length, config, missing)
        terms.append(learner.cut(drafts, rows=rows, weight=algorithm.draft_weight))
    learner.compile(terms, scores=algorithm.num_iterations > 1 or reference is not None)
    facts = {
        "learning_rate": lr,
        "update/dead_fraction": sum(t.dead_groups for t in terms) / sum(t.groups for t in terms),
    }
    if not any(term.parts for term in terms):
        return state, facts | {"update/skipped": 1.0}

    temperature = config.sampling.temperature or 1.0
    if algorithm.num_iterations > 1:
        terms = [_with_scores(learner, term, state.params, temperature, "old_logprobs") for term in terms]
    if reference is not None:
        terms = [_with_scores(learner, term, reference, temperature, "ref_logprobs") for term in terms]
    made: list[dict[str, jax.Array]] = []
    for iteration in range(algorithm.num_iterations):
        stopping = nothing if iteration else pause
        state, metrics = learner.update(state, terms, lr=lr, temperature=temperature, pause=stopping)
        made.append(metrics)
    tokens = sum(part.batch.lengths.sum() for term in terms for part in term.parts)
    facts["train/tokens"] = float(tokens * algorithm.num_iterations)
    facts["train/padding_fraction"] = 1 - sum(t.real_tokens for t in terms) / sum(t.computed_tokens for t in terms)
    made, finite = jax.device_get((made, learner.is_finite(state)))
    if not finite:
        raise ValueError(
            f"step {step + 1} has made weights or moments infinite or NaN out of a finite loss "
            f"{made[-1]['loss']:.3g} and gradient norm {made[-1]['grad_norm']:.3g}; nothing of it is saved: "
            "begin in another --workdir with a lower optim.learning_rate (--job export makes the last checkpoint a "
            "--model.source)"
        )
    # The sampler is compared with the policy that it sampled from: later iterations have changed it.
    fetched = {
        name: float(value if name.startswith(GAP) else np.mean([one[name] for one in made]))
        for name, value in made[0].items()
    }
    fetched[NONFINITE] *= len(made)  # a count, not a mean
    return state, fetched | facts | {"update/skipped": 0.0}


def completions(stage: Stage, prompt_length: Callable[[int], int], config: Config, missing: int = 0) -> Completions:
    """A stage's samples as the batch to train on, on the host, filled up with `missing` groups without any tokens.

    Where the loss needs other policies' log-probabilities, arrays of zeros are put in their place until they are known.
    What is masked has length 0 and no advantage.
    """
    prompts, prompt_lengths = pad_prompts([*stage.prompts, *[[0]] * missing], prompt_length(stage.number))
    samples, algorithm = stage.samples, config.algorithm
    kept = samples.ended | (not algorithm.mask_truncated)
    batch = Batch(
        lengths=np.where(kept, samples.lengths, 0),
        advantages=np.where(kept, stage.advantages, 0).astype(np.float32),
        old_logprobs=np.zeros(samples.tokens.shape, np.float32) if algorithm.num_iterations > 1 else None,
        ref_logprobs=np.zeros(samples.tokens.shape, np.float32) if penalized(algorithm) else None,
    )
    fill = lambda x: np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
    tokens, batch, logprobs = jax.tree.map(fill, (samples.tokens, batch, samples.logprobs))
    return Completions(prompts, prompt_lengths, tokens, batch, logprobs)


def _with_scores(learner: Learner, term: Portions, params: PyTree, temperature: float, field: str) -> Portions:
    """A term whose micro-batches know their log-probabilities under `params`, as that field of `Batch`."""
    scores = learner.score(params, term, temperature=temperature)
    pairs = zip(term.parts, scores, strict=True)
    return term._replace(parts=[part._replace(batch=part.batch._replace(**{field: x})) for part, x in pairs])
