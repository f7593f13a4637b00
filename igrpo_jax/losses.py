"""The iGRPO loss as a pure function of log-probabilities and advantages.

It is PPO's clipped surrogate with GRPO's group advantages, on refinements. What of PPO and GRPO is not here, and why:

- No value model, no GAE: every token of a completion has the advantage of its whole completion against its group.
- No entropy bonus: the paper has none. `beta` puts a KL penalty into the loss; one that shapes the reward is in
  `igrpo_jax.learning.penalty`.
- No second clip for negative advantages (dual clip) and no correction for a sampler that differs from the trainer:
  both are one function here, so on policy the ratio is 1 up to rounding.
- No gradient through drafts: the draft is only text in the prompt.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from igrpo_jax.config import AlgorithmConfig
from igrpo_jax.types import AnyArray, Batch

LOSS_TYPES = ("grpo", "dr_grpo", "dapo", "gspo", "cispo")
"""What `token_weights` and `igrpo_loss` know."""


def token_mask(lengths: Int[AnyArray, "*rows"], size: int) -> Bool[Array, "*rows T"]:
    """True at the tokens of each completion, its end token included; made from lengths, never from token values."""
    return jnp.expand_dims(jnp.arange(size), tuple(range(lengths.ndim))) < lengths[..., None]


def token_weights(
    lengths: Int[AnyArray, "*rows"], *, size: int, loss_type: str, count: int | None = None
) -> Float[Array, "*rows T"]:
    """Each token's share of the loss of a whole batch, so that any split of the batch adds up to the same loss.

    - grpo, gspo: `1 / (rows · |o_j|)`: token mean inside a completion, then mean over completions (Eq. 5).
    - dapo, cispo: `1 / Σ_j |o_j|`: mean over all tokens of the batch (arXiv 2503.14476, 2506.13585).
    - dr_grpo: `1 / (rows · T)`: a constant, so that long completions are not favored (arXiv 2503.20783).

    Args:
      lengths: int[*rows], tokens of each completion; rows of length 0 only fill up a batch and do not count.
      size: T, the padded completion length.
      loss_type: one of the above.
      count: how many completions `rows` is, where some of length 0 count all the same: masked and missing ones.

    Returns:
      float[*rows, T], zero past each length; sums to 1 except under dr_grpo, or where a completion is masked.

    Raises:
      ValueError: an unknown loss_type.

    >>> token_weights(jnp.array([1, 2, 0]), size=2, loss_type="grpo")
    Array([[0.5 , 0.  ],
           [0.25, 0.25],
           [0.  , 0.  ]], dtype=float32)
    """
    mask = token_mask(lengths, size).astype(jnp.float32)
    rows = jnp.maximum((lengths > 0).sum(), 1).astype(jnp.float32) if count is None else float(count)
    if loss_type in ("dapo", "cispo"):
        return mask / jnp.maximum(mask.sum(), 1.0)
    if loss_type == "dr_grpo":
        return mask / (rows * size)
    if loss_type in ("grpo", "gspo"):
        return mask / (rows * jnp.maximum(lengths, 1))[..., None]
    raise ValueError(f"loss_type {loss_type!r} is unknown; use one of {', '.join(LOSS_TYPES)}")


def kl_estimate(log_rho: Float[AnyArray, "*rows"], estimator: str) -> Float[AnyArray, "*rows"]:
    """KL(π_θ ‖ π_ref) as estimated from tokens drawn from π_θ, given `log ρ = log π_ref - log π_θ` of each.

    k1 is `-log ρ`, without bias but of either sign; k2 `(log ρ)² / 2`; k3 `ρ - log ρ - 1`, without bias and never
    negative (joschu.net/blog/kl-approx.html). In a loss only k2 and k3 mean something: the gradient of k1,
    `∇ log π_θ`, does not know the reference. That of k2 is KL's own in expectation, on policy. In a reward it is k1
    whose expected gradient is KL's.

    Args:
      log_rho: nats, of numpy or jax; the result is of the same kind.
      estimator: "k1", "k2" or "k3".

    >>> import numpy as np
    >>> [float(kl_estimate(np.log(np.array([2.0])), k).round(4)[0]) for k in ("k1", "k2", "k3")]
    [-0.6931, 0.2402, 0.3069]
    """
    xp: Any = log_rho.__array_namespace__()
    if estimator == "k1":
        return -log_rho
    return 0.5 * log_rho**2 if estimator == "k2" else xp.expm1(log_rho) - log_rho


def igrpo_loss(
    logprobs: Float[Array, "*rows T"], batch: Batch, config: AlgorithmConfig
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The clipped surrogate of iGRPO with an optional KL penalty, to be minimized (the negative of Eq. 5).

        loss = - Σ_jt w_jt [ min(r_jt A_j, clip(r_jt, 1 - ε, 1 + ε_high) A_j) - β KL_jt ]
        r_jt = exp(log π_θ - log π_old)

    Everything is conditioned on the stage-two prompt; GRPO is the same function under the bare prompt. Under
    `loss_type="gspo"` the ratio is one a completion, the exponential of its mean log-ratio (arXiv 2507.18071). Under
    "cispo" the clipped ratio is a constant, `sg(clip(r_jt, 1 - ε, 1 + ε_high)) A_j log π_θ` (arXiv 2506.13585).

    Args:
      logprobs: float32[*rows, T] log-probabilities (nats) of the completions' tokens under the policy being trained;
        values past `batch.lengths` have no effect, not even NaN.
      batch: advantages, lengths and other policies' log-probabilities; see `Batch`.
      config: `epsilon`, `epsilon_high`, `beta`, `kl_in`, `kl_estimator` and `loss_type` are read.

    Returns:
      The loss, and metrics weighted like the loss, so that they add up over micro-batches too: `kl` (nats a token, 0
      without a penalty in the loss), `clip_ratio/low_mean`, `clip_ratio/high_mean`, `clip_ratio/region_mean` (shares of
      tokens). Under dr_grpo, whose weights do not add up to 1, they are scaled by mean length / T.

    Raises:
      ValueError: `penalized(config)` without `ref_logprobs`.

    >>> batch = Batch(
    ...     lengths=jnp.array([1, 1]),
    ...     advantages=jnp.array([1.0, -1.0]),
    ...     old_logprobs=jnp.log(jnp.array([[0.4], [0.5]])),
    ... )
    >>> loss, _ = igrpo_loss(jnp.log(jnp.array([[0.6], [0.5]])), batch, AlgorithmConfig())
    >>> round(float(loss), 4)  # the first ratio, 1.5, is clipped to 1.2: -(1.2 - 1.0) / 2
    -0.1
    """
    if penalized(config) and batch.ref_logprobs is None:
        raise ValueError("beta > 0 needs ref_logprobs in the batch; score it with the reference policy or set beta=0")
    size = logprobs.shape[-1]
    mask = token_mask(batch.lengths, size)
    weights = batch.weights
    if weights is None:
        weights = token_weights(batch.lengths, size=size, loss_type=config.loss_type)
    logprobs = jnp.where(mask, logprobs, 0.0)
    old = jax.lax.stop_gradient(logprobs) if batch.old_logprobs is None else batch.old_logprobs
    gain, is_low, is_high = _surrogate(logprobs, jnp.where(mask, old, 0.0), batch, config)

    kl = jnp.zeros_like(gain)
    if penalized(config) and batch.ref_logprobs is not None:
        kl = kl_estimate(jnp.where(mask, batch.ref_logprobs, 0.0) - logprobs, config.kl_estimator)
        gain = gain - config.beta * kl
    metrics = {
        "kl": (weights * kl).sum(),
        "clip_ratio/low_mean": (weights * is_low).sum(),
        "clip_ratio/high_mean": (weights * is_high).sum(),
        "clip_ratio/region_mean": (weights * (is_low | is_high)).sum(),
    }
    return -(weights * gain).sum(), metrics


def penalized(config: AlgorithmConfig) -> bool:
    """Whether the loss has a KL penalty, so that tokens have a gradient whatever their advantage."""
    return config.beta > 0 and config.kl_in == "loss"


def _surrogate(
    logprobs: Float[Array, "*rows T"], old: Float[Array, "*rows T"], batch: Batch, config: AlgorithmConfig
) -> tuple[Float[Array, "*rows T"], Bool[Array, "*rows T"], Bool[Array, "*rows T"]]:
    """What each token adds to the objective without its weight, and where the lower and the upper clip take effect."""
    log_ratio, advantages = logprobs - old, batch.advantages[..., None]
    if config.loss_type == "gspo":
        # Weights of 1/|o| at |o| tokens add up to the one gradient that the mean already carries.
        mean = log_ratio.sum(-1, keepdims=True) / jnp.maximum(batch.lengths, 1)[..., None]
        log_ratio = jnp.broadcast_to(mean, log_ratio.shape)
    high = config.epsilon if config.epsilon_high is None else config.epsilon_high
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.epsilon, 1 + high)
    if config.loss_type == "cispo":
        # A weight is clipped whatever the sign of the advantage.
        gain = jax.lax.stop_gradient(clipped) * advantages * logprobs
        return gain, (ratio < 1 - config.epsilon) & (advantages != 0), (ratio > 1 + high) & (advantages != 0)
    gain = jnp.minimum(ratio * advantages, clipped * advantages)
    return gain, (ratio < 1 - config.epsilon) & (advantages < 0), (ratio > 1 + high) & (advantages > 0)
