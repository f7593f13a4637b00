"""AdamW: the state that training changes, the learning rate of a step, and the step itself."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from igrpo_jax.config import OptimConfig
from igrpo_jax.types import PyTree


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


def adamw(config: OptimConfig) -> optax.GradientTransformationExtraArgs:
    """Global-norm clip and AdamW, all but the factor -lr: the learning rate is a traced argument of `adamw_step`."""

    def clip(grads: PyTree, _: PyTree) -> PyTree:
        # One factor for all: `optax.clip_by_global_norm` divides each number, and XLA on CPU does not fuse a division
        # into what makes the two moments but keeps its result, a second gradient.
        norm = optax.tree.norm(grads)
        factor = jnp.where(norm > config.max_grad_norm, config.max_grad_norm / norm, 1.0)
        return jax.tree.map(lambda grad: factor * grad, grads)

    return optax.chain(
        optax.stateless(clip),
        _adam(config),
        optax.add_decayed_weights(config.weight_decay),
    )


def _adam(config: OptimConfig) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam`, whose moments and count stay as they are where a step is not `good`.

    What comes out is made of the moments that were chosen. Made of the new ones, and chosen from afterwards, both
    would exist at once: a second gradient and more.
    """
    init = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.adam_epsilon).init

    def step(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        good, count = extra["good"], optax.safe_increment(state.count)
        mu = chosen(good, optax.tree.update_moment(updates, state.mu, config.beta1, 1), state.mu)
        nu = chosen(good, optax.tree.update_moment_per_elem_norm(updates, state.nu, config.beta2, 2), state.nu)
        means = optax.tree.bias_correction(mu, config.beta1, count)
        squares = optax.tree.bias_correction(nu, config.beta2, count)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + config.adam_epsilon), means, squares)
        return updates, optax.ScaleByAdamState(chosen(good, count, state.count), mu, nu)

    return optax.GradientTransformationExtraArgs(init, step)


def chosen(good: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """The new numbers where `good`, else the old ones.

    Number by number and not by a conditional, for which a GPU would ask the host.
    """
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)


def adamw_step(
    state: TrainState,
    grads: PyTree,
    lr: Float[Array, ""],
    good: Bool[Array, ""],
    *,
    optimizer: optax.GradientTransformationExtraArgs,
) -> TrainState:
    """θ - lr · update, where the update is what `adamw` makes of the gradient of the whole batch.

    Where the step is not `good` the state stays as it is, moments and their count included.
    """
    updates, moments = optimizer.update(grads, state.moments, state.params, good=good)
    params = jax.tree.map(lambda p, u: p - lr * u, state.params, updates)
    return TrainState(chosen(good, params, state.params), moments)


def is_finite(state: TrainState) -> Bool[Array, ""]:
    """Whether every number of the parameters and the moments is finite."""
    # A sum of squares is infinite or NaN if any number is; so scaled, no finite numbers overflow it. XLA on CPU would
    # keep a byte a number for `isfinite(leaf).all()`, and its `max` drops NaN.
    squares = [jnp.sum(jnp.square(1e-25 * leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(state)]
    return jnp.isfinite(jnp.stack(squares)).all()
