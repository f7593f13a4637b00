"""The update: gradients of the loss summed over micro-batches, AdamW."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from igrpo_jax.config import Config, OptimConfig
from igrpo_jax.learning.logprobs import Scored, completion_logprobs
from igrpo_jax.learning.microbatches import Completions, Portions, micro_batches
from igrpo_jax.losses import igrpo_loss, token_mask, token_weights
from igrpo_jax.types import Layout, Model, PyTree

GAP = "sampling/logp_difference"
"""How far the trainer's log-probabilities are from the sampler's; reported where the sampler's are known."""


class TrainState(NamedTuple):
    """All that training changes: with a step number it is the whole checkpoint.

    Attributes:
      params: float32 master weights, shaped like the policy.
      moments: optax state.
    """

    params: PyTree
    moments: optax.OptState


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
        self._layout, self._config = layout, config
        optimizer = adamw(config.optim)
        abstract = TrainState(abstract_params, jax.eval_shape(optimizer.init, abstract_params))
        self.shardings: TrainState = layout.train_shardings(abstract)
        self.abstract = abstract
        place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
        self.placed: TrainState = jax.tree.map(place, abstract, self.shardings)
        self.num_parameters = sum(x.size for x in jax.tree.leaves(abstract_params))
        view_shape = jax.eval_shape(partial(model.sampling_view, dtype=dtype), abstract_params)
        view_places = layout.decode_shardings(view_shape)
        self.placed_view: PyTree = jax.tree.map(place, view_shape, view_places)
        self.view = jax.jit(partial(model.sampling_view, dtype=dtype), out_shardings=view_places)
        self._init = jax.jit(optimizer.init, out_shardings=self.shardings.moments)
        scalar = layout.train_shardings(jax.ShapeDtypeStruct((), jnp.float32))
        shards = layout.num_row_shards
        compute = {"model": model, "dtype": dtype, "chunk": config.train.logprob_chunk, "shards": shards}
        self._compiled: set[str] = set()
        self._weights = jax.jit(token_weights, static_argnames=("size", "loss_type"), out_shardings=scalar)
        self._zeros = jax.jit(
            lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_params),
            out_shardings=self.shardings.params,
        )
        self._accumulate = jax.jit(
            partial(_accumulate, config=config, **compute),
            donate_argnames=("grads", "report"),
            out_shardings=(self.shardings.params, scalar),
        )
        # Gradients are read once more here and have no output that could take their place.
        self._apply = jax.jit(
            partial(_apply, optimizer=optimizer),
            donate_argnames=("state",),
            out_shardings=(self.shardings, scalar),
        )
        self._score = jax.jit(lambda *scored: _scores(*scored, **compute).logprobs)

    def init(self, params: PyTree) -> TrainState:
        """A fresh optimizer around the given master weights."""
        return TrainState(params, self._init(params))

    def cut(self, whole: Completions, *, rows: int, weight: float = 1.0) -> Portions:
        """A term of the loss as micro-batches on the host; see `micro_batches`.

        Args:
          whole: every completion that was sampled; `batch.weights` are made here.
          rows: completions a device trains on at once, at most.
          weight: of the term.
        """
        shares = self._weights(
            self._layout.everywhere(whole.batch.lengths),
            size=whole.tokens.shape[2],
            loss_type=self._config.algorithm.loss_type,
        )
        batch = whole.batch._replace(weights=weight * jax.device_get(shares))
        return micro_batches(
            whole._replace(batch=batch),
            rows=rows,
            shards=self._layout.num_row_shards,
            keep_dead=self._config.algorithm.beta > 0,
        )

    def compile(self, terms: Sequence[Portions], *, scores: bool) -> None:
        """Compiles the update, and with `scores` the scoring, for every shape that the terms can have; once."""
        number = self._layout.everywhere(np.float32(0))
        if not self._compiled:
            if _several(terms):
                self._zeros.lower().compile()
            reports = tuple(self.report(term.menu[0]) for term in terms)
            self.optimizer_program(reports).lower().compile()
        for part in (part for term in terms for part in term.menu):
            shape = str(jax.tree.map(np.shape, part))
            if shape in self._compiled:
                continue
            self._compiled.add(shape)
            self.gradient_program(part, several=_several(terms)).lower().compile()
            if scores:
                self._score.lower(self.placed.params, *self._scored(part), number).compile()

    def gradient_program(self, part: Completions, *, several: bool) -> jax.stages.Traced:
        """What runs for a micro-batch of this shape; with `several` it adds to the gradients of earlier ones."""
        grads, number = self.placed.params if several else None, self._layout.everywhere(np.float32(0))
        part, report = self._layout.rows(part), self.report(part)
        return self._accumulate.trace(self.placed.params, grads, report, part, number)

    def optimizer_program(self, reports: tuple[PyTree, ...]) -> jax.stages.Traced:
        """What runs once an update."""
        number = self._layout.everywhere(np.float32(0))
        return self._apply.trace(self.placed, self.placed.params, reports, number)

    def update(
        self, state: TrainState, terms: Sequence[Portions], *, lr: float, temperature: float
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One optimizer step; the old state is consumed. No result is read in between.

        Args:
          state: donated.
          terms: of the loss, each made by `cut`: the refinements, and the drafts if they are trained on.
          lr: learning rate of this step.
          temperature: that the completions were sampled at.

        Returns:
          The new state and device scalars: loss, grad_norm, and of the first term, where any of it is trained on,
          entropy (nats a token), the sampler's distance and the metrics of `igrpo_loss`.
        """
        self.compile(terms, scores=False)
        lr, temperature = self._layout.everywhere((np.float32(lr), np.float32(temperature)))
        grads, reports = self._zeros() if _several(terms) else None, []
        for term in terms:
            report = self.report(term.menu[0])
            for part in term.parts:
                grads, report = self._accumulate(state.params, grads, report, self._layout.rows(part), temperature)
            reports.append(report)
        state, metrics = self._apply(state, grads, tuple(reports), lr)
        if not terms[0].parts:
            metrics = {name: metrics[name] for name in ("loss", "grad_norm")}
        return state, metrics

    def score(self, params: PyTree, term: Portions, *, temperature: float) -> list[jax.Array]:
        """Log-probabilities float32[p, g, T] of every micro-batch under `params`, left on the devices."""
        number = self._layout.everywhere(np.float32(temperature))
        return [self._score(params, *self._scored(part), number) for part in term.parts]

    def _scored(self, part: Completions) -> PyTree:
        """What of a micro-batch its log-probabilities depend on."""
        return self._layout.rows((part.prompts, part.prompt_lengths, part.tokens, part.packed))

    def report(self, part: Completions) -> PyTree:
        """Zeros to add a term's metrics to."""
        names = ["loss", "tokens", "entropy", "kl", *(f"clip_ratio/{name}_mean" for name in ("low", "high", "region"))]
        if part.sampled_logprobs is not None:
            names += [f"{GAP}/mean", f"{GAP}/max"]
        return self._layout.everywhere({name: np.float32(0) for name in names})


def adamw(config: OptimConfig) -> optax.GradientTransformation:
    """Global-norm clip and AdamW up to the learning rate, which is a traced argument of the update."""

    def clip(grads: PyTree, _: PyTree) -> PyTree:
        # One factor for all: `optax.clip_by_global_norm` divides each number, and XLA on CPU does not fuse a division
        # into what makes the two moments but keeps its result, a second gradient.
        norm = optax.tree.norm(grads)
        factor = jnp.where(norm > config.max_grad_norm, config.max_grad_norm / norm, 1.0)
        return jax.tree.map(lambda grad: factor * grad, grads)

    return optax.chain(
        optax.stateless(clip),
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.adam_epsilon),
        optax.add_decayed_weights(config.weight_decay),
    )


def _several(terms: Sequence[Portions]) -> bool:
    """Whether there can be several micro-batches; a gradient to add to would take memory for nothing otherwise."""
    return sum(term.most for term in terms) > 1


def _cast(params: PyTree, dtype: Any) -> PyTree:
    return jax.tree.map(lambda x: x.astype(dtype), params)


def _scores(params, prompts, prompt_lengths, tokens, packed, temperature, *, model, dtype, chunk, shards) -> Scored:
    """What float32 master weights make of completions, computed in `dtype`, `chunk` tokens of a shard at a time."""
    chunk = max(chunk * shards // len(tokens), 1)
    return completion_logprobs(
        model, _cast(params, dtype), prompts, prompt_lengths, tokens,
        temperature=temperature, chunk=chunk, shards=shards, packed=packed,
    )  # fmt: skip


def _loss(params, part: Completions, temperature, *, config: Config, **compute: Any):
    """Loss of one micro-batch, and metrics: sums, but for maxima."""
    scored = _scores(params, part.prompts, part.prompt_lengths, part.tokens, part.packed, temperature, **compute)
    loss, metrics = igrpo_loss(scored.logprobs, part.batch, config.algorithm)
    mask = token_mask(part.batch.lengths, part.tokens.shape[-1])
    metrics |= {"loss": loss, "tokens": mask.sum(dtype=jnp.float32), "entropy": (scored.entropy * mask).sum()}
    if part.sampled_logprobs is not None:
        gap = jnp.abs(scored.logprobs - part.sampled_logprobs) * mask
        metrics |= {f"{GAP}/mean": gap.sum(), f"{GAP}/max": gap.max()}
    return loss, metrics


def _accumulate(params, grads, report, part: Completions, temperature, **static: Any):
    """Adds a micro-batch's gradient, and metrics, to those so far; None where there can be no other gradient."""
    grad = jax.grad(partial(_loss, **static), has_aux=True)
    more, metrics = grad(params, part, temperature)
    join = lambda name: jnp.maximum if name.endswith("/max") else jnp.add
    report = {name: join(name)(report[name], metrics[name]) for name in report}
    return more if grads is None else jax.tree.map(jnp.add, grads, more), report


def _apply(state: TrainState, grads, reports, lr, *, optimizer):
    """One AdamW step on the gradient of all micro-batches, and the metrics of the whole batch."""
    updates, moments = optimizer.update(grads, state.moments, state.params)
    params = jax.tree.map(lambda p, u: p - lr * u, state.params, updates)
    metrics = dict(reports[0])
    tokens = jnp.maximum(metrics.pop("tokens"), 1.0)
    for name in ("entropy", f"{GAP}/mean"):
        if name in metrics:
            metrics[name] = metrics[name] / tokens
    metrics |= {"loss": sum(report["loss"] for report in reports), "grad_norm": optax.tree.norm(grads)}
    return TrainState(params, moments), metrics
