"""Which draft is kept, and how much better than its group each completion is."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from igrpo_jax.types import AnyArray

DELTA = 1e-6
"""Added to the standard deviation, as TRL and verl do (they use 1e-4 and 1e-6)."""


def group_advantages(rewards: Float[AnyArray, "P G"], *, baseline: str, scale: str) -> Float[AnyArray, "P G"]:
    """Rewards relative to their group: `A_j = (R_j - mean R) / (std R + δ)`, iGRPO's Eq. 4.

    A group whose rewards are all *exactly* equal gets zeros: with rounding its standard deviation might be 1e-8, and
    noise would be scaled up to a full-sized advantage.

    Args:
      rewards: float[P, G], of numpy or jax, all of a step; the result is of the same kind.
      baseline: "group", or "leave_one_out": R_j is compared with the mean of the others, which do not depend on it:
        `R_j - Σ_{i≠j} R_i / (G - 1) = (R_j - mean R) G / (G - 1)` (RLOO, arXiv 2402.14740).
      scale: by which population standard deviation is divided: "group", its own; "batch", that of all P x G rewards;
        "none" is Dr. GRPO's advantage (arXiv 2503.20783).

    Returns:
      float[P, G], in standard deviations (or reward units without `scale`); each row sums to 0.

    >>> rewards = np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    >>> group_advantages(rewards, baseline="group", scale="group").round(3)
    array([[ 1., -1., -1.,  1.],
           [ 0.,  0.,  0.,  0.]])
    >>> group_advantages(rewards, baseline="leave_one_out", scale="none").round(3)
    array([[ 0.667, -0.667, -0.667,  0.667],
           [ 0.   ,  0.   ,  0.   ,  0.   ]])
    """
    xp: Any = rewards.__array_namespace__()
    equal = xp.all(rewards == rewards[:, :1], axis=1, keepdims=True)
    centered = rewards - xp.mean(rewards, axis=1, keepdims=True)
    around = centered if scale == "group" else rewards - xp.mean(rewards)
    deviation = xp.sqrt(xp.mean(around**2, axis=1 if scale == "group" else None, keepdims=True)) + DELTA
    others = rewards.shape[1] / max(rewards.shape[1] - 1, 1) if baseline == "leave_one_out" else 1.0
    advantages = others * (centered if scale == "none" else centered / deviation)
    return xp.where(equal, xp.zeros_like(centered), advantages)


def overlong_penalty(lengths: Int[np.ndarray, "*rows"], *, limit: int, buffer: int) -> Float[np.ndarray, "*rows"]:
    """DAPO's soft overlong punishment (arXiv 2503.14476, Eq. 13): falls from 0 to -1 over the last tokens there are.

    Args:
      lengths: tokens of each completion.
      limit: the most that there can be, L_max.
      buffer: so many of them cost, L_cache; at least 1.

    >>> overlong_penalty(np.array([79, 80, 85, 100]), limit=100, buffer=20)
    array([ 0.  ,  0.  , -0.25, -1.  ])
    """
    return np.clip((limit - buffer - lengths) / buffer, -1.0, 0.0)


def select_draft(
    rewards: Float[np.ndarray, "P G"],
    lengths: Int[np.ndarray, "P G"],
    right: Bool[np.ndarray, "P G"],
    noise: Float[np.ndarray, "P G"],
    *,
    select: str,
    tie_break: str,
) -> Int[np.ndarray, " P"]:
    """Index of the draft that conditions stage two: `d̂ = argmax_i R(d_i)`, iGRPO's Eq. 3.

    Under a 0/1 reward nearly every argmax is a tie, which the paper leaves open; here it is broken by `noise`.

    Args:
      rewards: float[P, N] of the drafts.
      lengths: int[P, N], their tokens.
      right: bool[P, N], whether their answers are right, whatever else is rewarded.
      noise: float[P, N] in [0, 1), keyed by step and problem.
      select: "best", "worst", "random" (any draft whatever its reward), or "wrong_first" (any wrong draft, and any at
        all where none is wrong).
      tie_break: "random", "first", "shortest" or "longest", among equally good drafts; under "wrong_first" those are
        all wrong ones, or all.

    Returns:
      int[P].

    >>> select_draft(np.array([[0.0, 1.0, 1.0]]), np.array([[5, 9, 7]]), np.array([[False, True, True]]),
    ...              np.array([[0.9, 0.5, 0.1]]), select="best", tie_break="shortest")
    array([2])
    """
    goodness = {"best": rewards, "worst": -rewards, "random": np.zeros_like(rewards), "wrong_first": ~right}[select]
    tied = goodness == goodness.max(axis=1, keepdims=True)
    order = np.broadcast_to(np.arange(rewards.shape[1]), rewards.shape)
    preferences = {"random": -noise, "first": order, "shortest": lengths, "longest": -lengths}
    preference = preferences["random" if select == "random" else tie_break]
    return np.argmin(np.where(tied, preference, np.inf), axis=1)
