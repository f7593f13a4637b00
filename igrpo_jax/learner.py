"""The update: micro-batches of completions, the loss, AdamW."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from igrpo_jax.config import Config, OptimConfig
from igrpo_jax.logprobs import completion_logprobs
from igrpo_jax.losses import igrpo_loss, token_mask, token_weights
from igrpo_jax.types import AnyArray, Batch, Layout, Model, PyTree


class TrainState(NamedTuple):
    """All that training changes: with a step number it is the whole checkpoint.

    Attributes:
      params: float32 master weights, shaped like the policy.
      moments: optax state.
    """

    params: PyTree
    moments: optax.OptState


class Completions(NamedTuple):
    """Completions to train on, with their prompts; one leading axis of micro-batches once `micro_batches` has cut it.

    Attributes:
      prompts: int32[..., P, L].
      prompt_lengths: int32[..., P].
      tokens: int32[..., P, G, T].
      batch: what the loss needs, [..., P, G] or [..., P, G, T]; its weights are made by the update.
      sampled_logprobs: float32[..., P, G, T], the sampler's own, to report how far the trainer's are from them.
    """

    prompts: Int[AnyArray, "*micro P L"]
    prompt_lengths: Int[AnyArray, "*micro P"]
    tokens: Int[AnyArray, "*micro P G T"]
    batch: Batch
    sampled_logprobs: Float[AnyArray, "*micro P G T"] | None = None


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Linear warm-up from 0 over `warmup_ratio` of the steps, then a cosine to `final_lr_ratio` of the peak.

    >>> [round(learning_rate(s, 11, OptimConfig(learning_rate=1.0, warmup_ratio=0.2)), 3) for s in (0, 1, 2, 10)]
    [0.5, 1.0, 0.973, 0.1]
    """
    warmup = round(config.warmup_ratio * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step + 1 - warmup) / max(steps - warmup, 1)
    low = config.final_lr_ratio
    return config.learning_rate * (low + (1 - low) * 0.5 * (1 + float(np.cos(np.pi * progress))))


def micro_batches(whole: Completions, *, rows: int, shards: int) -> Completions:
    """Cuts a batch into micro-batches of `rows` completions a shard, on the host.

    A group whose G does not fit is cut into sub-groups that share the prompt. Micro-batches are of one size, no larger
    than their number needs; what is missing is filled up with completions of length 0, which do not count.

    Args:
      whole: [P, ...] arrays of numpy.
      rows: completions a shard trains on at once, at most.
      shards: number of devices that hold different rows.

    Returns:
      The same with shapes [M, p, ...] where p is a multiple of shards, with g = gcd(G, rows) completions a prompt and
      p x g at most shards x rows.
    """
    p, g = whole.tokens.shape[:2]
    part = int(np.gcd(g, rows))
    copies = g // part
    micro = -(-p * copies // (shards * (rows // part)))
    per_micro = shards * -(-p * copies // (micro * shards))
    fill = micro * per_micro - p * copies

    def cut(x: AnyArray, per_sample: bool) -> np.ndarray:
        x = np.reshape(x, (p * copies, part, *x.shape[2:])) if per_sample else np.repeat(x, copies, axis=0)
        x = np.concatenate([x, np.zeros((fill, *x.shape[1:]), x.dtype)])
        return x.reshape(-1, per_micro, *x.shape[1:])

    samples = (whole.tokens, whole.batch, whole.sampled_logprobs)
    tokens, batch, sampled_logprobs = jax.tree.map(partial(cut, per_sample=True), samples)
    lengths = np.maximum(cut(whole.prompt_lengths, False), 1)
    return Completions(cut(whole.prompts, False), lengths, tokens, batch, sampled_logprobs)


class Learner:
    """The jitted functions that read and change a `TrainState`."""

    def __init__(self, model: Model, layout: Layout, config: Config, abstract_params: PyTree, *, dtype: Any):
        """Fixes the layouts of the state, so that no update ever compiles twice.

        Args:
          model: see `igrpo_jax.types.Model`.
          layout: see `igrpo_jax.types.Layout`.
          config: the experiment.
          abstract_params: the policy's shapes, from `jax.eval_shape`.
          dtype: compute dtype of updates and of the sampling view.
        """
        self._layout = layout
        self._optimizer = optimizer(config.optim)
        abstract = TrainState(abstract_params, jax.eval_shape(self._optimizer.init, abstract_params))
        self.shardings: TrainState = layout.train_shardings(abstract)
        self.abstract = abstract
        self.num_parameters = sum(x.size for x in jax.tree.leaves(abstract_params))
        view_shape = jax.eval_shape(partial(model.sampling_view, dtype=dtype), abstract_params)
        self.view = jax.jit(
            partial(model.sampling_view, dtype=dtype), out_shardings=layout.decode_shardings(view_shape)
        )
        self._init = jax.jit(self._optimizer.init, out_shardings=self.shardings.moments)
        compute = {"model": model, "dtype": dtype, "chunk": config.train.logprob_chunk}
        self._update = jax.jit(
            partial(_update, config=config, optimizer=self._optimizer, **compute),
            donate_argnames=("state",),
            out_shardings=(self.shardings, None),
        )
        self._score = jax.jit(partial(_score, **compute))

    def init(self, params: PyTree) -> TrainState:
        """A fresh optimizer around the given master weights."""
        return TrainState(params, self._init(params))

    def update(
        self,
        state: TrainState,
        terms: tuple[Completions, ...],
        *,
        weights: tuple[float, ...],
        lr: float,
        temperature: float,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One optimizer step on micro-batched completions; the old state is consumed.

        Args:
          state: donated.
          terms: of the loss, each cut by `micro_batches`: the refinements, and the drafts if they are trained on.
          weights: of the terms.
          lr: learning rate of this step.
          temperature: that the completions were sampled at.

        Returns:
          The new state and device scalars: loss, grad_norm, and of the first term entropy (nats a token), the
          sampler's distance and the metrics of `igrpo_loss`.
        """
        numbers = (np.asarray(weights, np.float32), np.float32(lr), np.float32(temperature))
        return self._update(state, self._layout.rows(terms, axis=1), *self._layout.everywhere(numbers))

    def score(self, params: PyTree, batch: Completions, *, temperature: float) -> np.ndarray:
        """Log-probabilities float32[M, p, g, T] of micro-batched completions under `params`, on the host."""
        texts = self._layout.rows((batch.prompts, batch.prompt_lengths, batch.tokens), axis=1)
        return jax.device_get(self._score(params, *texts, self._layout.everywhere(np.float32(temperature))))


def optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Global-norm clip and AdamW up to the learning rate, which is a traced argument of the update."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.adam_epsilon),
        optax.add_decayed_weights(config.weight_decay),
    )


def _cast(params: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda x: x.astype(dtype), params)


def _loss(params, part: Completions, temperature, *, config: Config, model: Model, dtype: Any, chunk: int):
    """Loss of one micro-batch under float32 master weights, computed in `dtype`, and metrics: sums, but for maxima."""
    scored = completion_logprobs(
        model, _cast(params, dtype), part.prompts, part.prompt_lengths, part.tokens,
        temperature=temperature, chunk=chunk,
    )  # fmt: skip
    loss, metrics = igrpo_loss(scored.logprobs, part.batch, config.algorithm)
    mask = token_mask(part.batch.lengths, part.tokens.shape[-1])
    metrics |= {"loss": loss, "tokens": mask.sum(dtype=jnp.float32), "entropy": (scored.entropy * mask).sum()}
    if part.sampled_logprobs is not None:
        gap = jnp.abs(scored.logprobs - part.sampled_logprobs) * mask
        metrics |= {"sampling/logp_difference/mean": gap.sum(), "sampling/logp_difference/max": gap.max()}
    return loss, metrics


def _update(state: TrainState, terms, weights, lr, temperature, *, config, optimizer, model, dtype, chunk):
    """Sums gradients over the micro-batches of every term, then takes one AdamW step."""
    grad = jax.grad(partial(_loss, config=config, model=model, dtype=dtype, chunk=chunk), has_aux=True)

    def accumulate(grads, part):
        more, metrics = grad(state.params, part, temperature)
        return jax.tree.map(jnp.add, grads, more), metrics

    grads, reports = jax.tree.map(jnp.zeros_like, state.params), []
    for term, weight in zip(terms, weights, strict=True):
        shares = token_weights(term.batch.lengths, size=term.tokens.shape[-1], loss_type=config.algorithm.loss_type)
        term = term._replace(batch=term.batch._replace(weights=weight * shares))
        grads, report = jax.lax.scan(accumulate, grads, term)
        reports.append({name: x.max() if name.endswith("/max") else x.sum() for name, x in report.items()})
    updates, moments = optimizer.update(grads, state.moments, state.params)
    params = jax.tree.map(lambda p, u: p - lr * u, state.params, updates)
    metrics = reports[0]
    tokens = jnp.maximum(metrics.pop("tokens"), 1.0)
    for name in ("entropy", "sampling/logp_difference/mean"):
        if name in metrics:
            metrics[name] = metrics[name] / tokens
    metrics |= {"loss": sum(report["loss"] for report in reports), "grad_norm": optax.tree.norm(grads)}
    return TrainState(params, moments), metrics


def _score(params, prompts, prompt_lengths, tokens, temperature, *, model, dtype, chunk) -> Float[Array, "M P G T"]:
    """Log-probabilities of every micro-batch."""
    policy = _cast(params, dtype)

    def score(_, part):
        return None, completion_logprobs(model, policy, *part, temperature=temperature, chunk=chunk).logprobs

    return jax.lax.scan(score, None, (prompts, prompt_lengths, tokens))[1]
