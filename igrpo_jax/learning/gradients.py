"""The gradient of the loss as a sum over micro-batches, and the metrics that are added up with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from igrpo_jax.config import AlgorithmConfig
from igrpo_jax.learning.logprobs import Scored, completion_logprobs
from igrpo_jax.learning.microbatches import Completions
from igrpo_jax.losses import igrpo_loss, token_mask
from igrpo_jax.protocols import Model
from igrpo_jax.types import AnyArray, Packed, PyTree

GAP = "sampling/logp_difference"
"""How far the trainer's log-probabilities are from the sampler's; reported where the sampler's are known."""

Report = dict[str, Any]
"""Metrics of some micro-batches by name: float32 sums over completions or tokens, but maxima where it ends in /max."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a policy's log-probabilities are computed.

    Attributes:
      model: the policy's functions.
      dtype: to which its float32 weights are cast.
      chunk: completion tokens of a shard whose logits exist at once, at most.
      shards: number of devices that hold different rows.
    """

    model: Model
    dtype: Any
    chunk: int
    shards: int


def scores(
    params: PyTree,
    prompts: Int[AnyArray, "P L"],
    prompt_lengths: Int[AnyArray, " P"],
    tokens: Int[AnyArray, "P G T"],
    packed: Packed | None,
    temperature: Float[Array, ""],
    *,
    compute: Compute,
) -> Scored:
    """Log-probabilities and entropies of a micro-batch's completions under float32 master weights."""
    chunk = max(compute.chunk * compute.shards // len(tokens), 1)
    policy = jax.tree.map(lambda x: x.astype(compute.dtype), params)
    return completion_logprobs(
        compute.model, policy, prompts, prompt_lengths, tokens,
        temperature=temperature, chunk=chunk, shards=compute.shards, packed=packed,
    )  # fmt: skip


def loss_of_part(
    params: PyTree, part: Completions, temperature: Float[Array, ""], *, algorithm: AlgorithmConfig, compute: Compute
) -> tuple[Float[Array, ""], Report]:
    """A micro-batch's part of the loss, by `part.batch.weights`, and its report."""
    scored = scores(
        params, part.prompts, part.prompt_lengths, part.tokens, part.packed, temperature, compute=compute
    )  # fmt: skip
    loss, metrics = igrpo_loss(scored.logprobs, part.batch, algorithm)
    mask = token_mask(part.batch.lengths, part.tokens.shape[-1])
    metrics |= {"loss": loss, "tokens": mask.sum(dtype=jnp.float32), "entropy": (scored.entropy * mask).sum()}
    if part.sampled_logprobs is not None:
        gap = jnp.abs(scored.logprobs - part.sampled_logprobs) * mask
        metrics |= {f"{GAP}/mean": gap.sum(), f"{GAP}/max": gap.max()}
    return loss, metrics


def accumulate(
    params: PyTree,
    grads: PyTree | None,
    report: Report,
    part: Completions,
    temperature: Float[Array, ""],
    *,
    algorithm: AlgorithmConfig,
    compute: Compute,
) -> tuple[PyTree, Report]:
    """Adds a micro-batch's gradient and report to those of the micro-batches before it.

    With `grads` None there are none before it, and its own gradient is returned as it is.
    """
    grad = jax.grad(partial(loss_of_part, algorithm=algorithm, compute=compute), has_aux=True)
    more, metrics = grad(params, part, temperature)
    join = lambda name: jnp.maximum if name.endswith("/max") else jnp.add
    report = {name: join(name)(report[name], metrics[name]) for name in report}
    return more if grads is None else jax.tree.map(jnp.add, grads, more), report


def empty_report(part: Completions) -> Report:
    """The report of no micro-batch at all, with the names that `loss_of_part` gives for batches like this one."""
    names = ["loss", "tokens", "entropy", "kl", *(f"clip_ratio/{name}_mean" for name in ("low", "high", "region"))]
    if part.sampled_logprobs is not None:
        names += [f"{GAP}/mean", f"{GAP}/max"]
    return {name: np.float32(0) for name in names}


def whole_batch(reports: Sequence[Report]) -> Report:
    """Metrics of a whole batch from each term's report: of the first term, but the loss is the sum of all terms'.

    Sums over tokens become means.
    """
    metrics = dict(reports[0])
    tokens = jnp.maximum(metrics.pop("tokens"), 1.0)
    for name in ("entropy", f"{GAP}/mean"):
        if name in metrics:
            metrics[name] = metrics[name] / tokens
    return metrics | {"loss": sum(report["loss"] for report in reports)}
