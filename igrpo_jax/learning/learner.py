"""The programs of an update: what is compiled for which shapes, where its arrays lie, and what it may overwrite.

The mathematics is elsewhere: `igrpo_jax.learning.gradients` has the loss of a micro-batch and its gradient,
`igrpo_jax.learning.optimizer` has AdamW.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from igrpo_jax.config import Config
from igrpo_jax.learning.gradients import Compute, Report, accumulate, empty_report, scores, whole_batch
from igrpo_jax.learning.microbatches import Completions, Portions, micro_batches
from igrpo_jax.learning.optimizer import TrainState, adamw, adamw_step, is_finite
from igrpo_jax.losses import penalized, token_weights
from igrpo_jax.protocols import Layout, Model
from igrpo_jax.types import PyTree

NONFINITE = "update/nonfinite"
"""How many steps of an update were left out, because the loss or the gradient was not finite."""


class Learner:
    """The compiled programs that read and change a `TrainState`, for one policy, mesh and config."""

    def __init__(self, model: Model, layout: Layout, config: Config, abstract_params: PyTree, *, dtype: Any):
        """Says of every program where its results lie, so that none compiles twice for arrays laid out differently.

        Args:
          model: see `igrpo_jax.protocols.Model`.
          layout: see `igrpo_jax.protocols.Layout`.
          config: the experiment.
          abstract_params: the policy's shapes, from `jax.eval_shape`.
          dtype: compute dtype of updates and of the sampling view.
        """
        self._layout, self._config = layout, config
        optimizer = adamw(config.optim)
        self.abstract = TrainState(abstract_params, jax.eval_shape(optimizer.init, abstract_params))
        self.shardings: TrainState = layout.train_shardings(self.abstract)
        self.placed: TrainState = _placed(self.abstract, self.shardings)
        self.num_parameters = sum(x.size for x in jax.tree.leaves(abstract_params))
        self._init = jax.jit(optimizer.init, out_shardings=self.shardings.moments)

        view = partial(model.sampling_view, dtype=dtype)
        view_shapes = jax.eval_shape(view, abstract_params)
        view_shardings = layout.decode_shardings(view_shapes)
        self.placed_view: PyTree = _placed(view_shapes, view_shardings)
        self.view = jax.jit(view, out_shardings=view_shardings)

        scalar = layout.train_shardings(jax.ShapeDtypeStruct((), jnp.float32))
        shards, chunk = layout.num_row_shards, config.train.logprob_chunk
        compute = Compute(model=model, dtype=dtype, chunk=chunk, shards=shards)
        self._compiled: set[str] = set()
        self._begun = False
        self._weights = jax.jit(token_weights, static_argnames=("size", "loss_type", "count"), out_shardings=scalar)
        self._zeros = jax.jit(
            lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract_params),
            out_shardings=self.shardings.params,
        )
        self._accumulate = jax.jit(
            partial(accumulate, algorithm=config.algorithm, compute=compute),
            donate_argnames=("grads", "report"),
            out_shardings=(self.shardings.params, scalar),
        )
        # The gradient is not donated: no output has room for it that the state does not already give.
        self._apply = jax.jit(
            partial(_apply, optimizer=optimizer),
            donate_argnames=("state",),
            out_shardings=(self.shardings, scalar),
        )
        self.is_finite = jax.jit(is_finite, out_shardings=scalar)
        score = lambda *scored: scores(*scored, compute=compute).logprobs
        self._score, self._score_everywhere = jax.jit(score), jax.jit(score, out_shardings=scalar)

    def init(self, params: PyTree) -> TrainState:
        """A fresh optimizer around the given master weights."""
        return TrainState(params, self._init(params))

    def cut(self, whole: Completions, *, rows: int, weight: float = 1.0) -> Portions:
        """Cuts the completions that one term of the loss is about into micro-batches, on the host.

        Args:
          whole: every completion that was sampled, with length 0 those that are masked or of problems that are missing;
            `batch.weights` are made here.
          rows: completions a device trains on at once, at most.
          weight: factor of the term in the loss.
        """
        shares = self._weights(
            self._layout.everywhere(whole.batch.lengths),
            size=whole.tokens.shape[2],
            loss_type=self._config.algorithm.loss_type,
            count=whole.batch.lengths.size,
        )
        batch = whole.batch._replace(weights=weight * jax.device_get(shares))
        return micro_batches(
            whole._replace(batch=batch),
            rows=rows,
            shards=self._layout.num_row_shards,
            keep_dead=penalized(self._config.algorithm),
        )

    def compile(self, terms: Sequence[Portions], *, scores: bool) -> None:
        """Compiles the update, and with `scores` the scoring, for every shape that micro-batches can have.

        What has been compiled before is not compiled again.
        """
        number = self._layout.everywhere(np.float32(0))
        if not self._begun:
            self._begun = True
            if _several(terms):
                self._zeros.lower().compile()
            reports = tuple(self.report(term.menu[0]) for term in terms)
            self.optimizer_program(reports).lower().compile()
            self.is_finite.lower(self.placed).compile()
        for part in (part for term in terms for part in term.menu):
            shape = str(jax.tree.map(np.shape, part))
            if shape in self._compiled:
                continue
            self._compiled.add(shape)
            self.gradient_program(part, several=_several(terms)).lower().compile()
            if scores:
                self._score.lower(self.placed.params, *self._scored(part), number).compile()

    def gradient_program(self, part: Completions, *, several: bool) -> jax.stages.Traced:
        """The program that runs for a micro-batch of this shape; see `igrpo_jax.learning.gradients.accumulate`.

        Args:
          part: a micro-batch of the shape.
          several: whether it adds its gradient to that of other micro-batches.
        """
        grads, number = self.placed.params if several else None, self._layout.everywhere(np.float32(0))
        part, report = self._layout.rows(part), self.report(part)
        return self._accumulate.trace(self.placed.params, grads, report, part, number)

    def optimizer_program(self, reports: tuple[PyTree, ...]) -> jax.stages.Traced:
        """The program that runs once an update: AdamW's step, and the metrics of the whole batch."""
        number = self._layout.everywhere(np.float32(0))
        return self._apply.trace(self.placed, self.placed.params, reports, number)

    def update(
        self,
        state: TrainState,
        terms: Sequence[Portions],
        *,
        lr: float,
        temperature: float,
        pause: Callable[[], None] = lambda: None,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One optimizer step on all micro-batches; the host waits for no result.

        Args:
          state: donated.
          terms: the parts of the loss, each made by `cut`: refinements, and drafts if they are trained on.
          lr: learning rate of this step.
          temperature: that the completions were sampled at.
          pause: called before each micro-batch, while the state is whole; may raise.

        Returns:
          The new state and device scalars: loss, grad_norm, `NONFINITE`, and of the first term, where any of it is
          trained on, entropy (nats a token), the sampler's distance and the metrics of `igrpo_loss`.
        """
        self.compile(terms, scores=False)
        lr, temperature = self._layout.everywhere((np.float32(lr), np.float32(temperature)))
        grads, reports = self._zeros() if _several(terms) else None, []
        for term in terms:
            report = self.report(term.menu[0])
            for part in term.parts:
                pause()
                grads, report = self._accumulate(state.params, grads, report, self._layout.rows(part), temperature)
            reports.append(report)
        state, metrics = self._apply(state, grads, tuple(reports), lr)
        if not terms[0].parts:
            metrics = {name: metrics[name] for name in ("loss", "grad_norm", NONFINITE)}
        return state, metrics

    def score(self, params: PyTree, term: Portions, *, temperature: float) -> list[jax.Array]:
        """Log-probabilities float32[p, g, T] of every micro-batch under `params`, left on the devices."""
        number = self._layout.everywhere(np.float32(temperature))
        return [self._score(params, *self._scored(part), number) for part in term.parts]

    def score_all(self, params: PyTree, whole: Completions, *, rows: int, temperature: float) -> np.ndarray:
        """Log-probabilities float32[P, G, T] of all completions under `params`, on the host; 0 past each length.

        Args:
          params: float32 master weights.
          whole: every completion that was sampled; its advantages and weights do not matter.
          rows: completions a device scores at once, at most.
          temperature: that the completions were sampled at.
        """
        term = micro_batches(whole, rows=rows, shards=self._layout.num_row_shards, keep_dead=True)
        number = self._layout.everywhere(np.float32(temperature))
        for part in term.menu:
            shape = f"scored everywhere: {jax.tree.map(np.shape, self._scored(part))}"
            if shape not in self._compiled:
                self._compiled.add(shape)
                self._score_everywhere.lower(self.placed.params, *self._scored(part), number).compile()
        scores = [self._score_everywhere(params, *self._scored(part), number) for part in term.parts]
        found = np.zeros((whole.batch.lengths.size, whole.tokens.shape[2]), np.float32)
        for places, some in zip(term.places, jax.device_get(scores), strict=True):
            found[places, : some.shape[2]] = some[: len(places)]
        found = found.reshape(whole.tokens.shape)
        return np.where(np.arange(found.shape[2]) < whole.batch.lengths[..., None], found, 0)

    def _scored(self, part: Completions) -> PyTree:
        """The part of a micro-batch that its log-probabilities depend on, on the devices."""
        return self._layout.rows((part.prompts, part.prompt_lengths, part.tokens, part.packed))

    def report(self, part: Completions) -> Report:
        """Zeros to add a term's metrics to."""
        return self._layout.everywhere(empty_report(part))


def _several(terms: Sequence[Portions]) -> bool:
    """Whether an update can have several micro-batches; if not, no gradient to add to is allocated."""
    return sum(term.most for term in terms) > 1


def _placed(shapes: PyTree, shardings: PyTree) -> PyTree:
    """Shapes of arrays that lie where the shardings say."""
    place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.tree.map(place, shapes, shardings)


def _apply(
    state: TrainState, grads: PyTree, reports: tuple[Report, ...], lr: jax.Array, *, optimizer: Any
) -> tuple[TrainState, Report]:
    """One AdamW step on the gradient of all micro-batches, and the metrics of the whole batch.

    A loss or gradient that is not finite changes nothing, and is reported as `NONFINITE`, 1 or 0.
    """
    metrics = whole_batch(reports) | {"grad_norm": optax.tree.norm(grads)}
    good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
    state = adamw_step(state, grads, lr, good, optimizer=optimizer)
    return state, metrics | {NONFINITE: 1.0 - good}
