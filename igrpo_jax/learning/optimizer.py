"""AdamW: the state that training changes, the learning rate of a step, and the step itself."""

from typing import NamedTuple

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


def adamw(config: OptimConfig) -> optax.GradientTransformation:
    """Global-norm clip and AdamW, all but the factor -lr: the learning rate is a traced argument of `adamw_step`."""

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


def adamw_step(
    state: TrainState,
    grads: PyTree,
    lr: Float[Array, ""],
    *,
    optimizer: optax.GradientTransformation,
    good: Bool[Array, ""] | bool = True,
) -> TrainState:
    """θ - lr · update, where the update is what `adamw` makes of the gradient of the whole batch.

    Where the step is not `good` the state stays as it is, moments and their count included. It is chosen number by
    number, not by a conditional, so that the new state is written over the old one.
    """
    updates, moments = optimizer.update(grads, state.moments, state.params)
    new = TrainState(jax.tree.map(lambda p, u: p - lr * u, state.params, updates), moments)
    return jax.tree.map(lambda after, before: jnp.where(good, after, before), new, state)


def is_finite(state: TrainState) -> Bool[Array, ""]:
    """Whether every number of the parameters and the moments is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()
