"""Log-probabilities of completions under a policy, without ever holding [rows, T, V] logits."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Shaped

from igrpo_jax.protocols import Model
from igrpo_jax.types import AnyArray, Packed, PyTree

PARTS = 128
"""Most parts of the vocabulary whose sums are taken apart, for precision; see `_sums`.

A mesh's tensor axis may split the vocabulary into as many.
"""


class Scored(NamedTuple):
    """Log-probabilities of tokens, and entropies of the distributions they were scored under.

    Attributes:
      logprobs: float32[P, G, T], or by slots [P, C], in nats.
      entropy: likewise; carries no gradient.
    """

    logprobs: Float[Array, "P *places"]
    entropy: Float[Array, "P *places"]


def completion_logprobs(
    model: Model,
    policy: PyTree,
    prompts: Int[AnyArray, "P L"],
    prompt_lengths: Int[AnyArray, " P"],
    completions: Int[AnyArray, "P G T"],
    *,
    temperature: Float[Array, ""],
    chunk: int,
    shards: int = 1,
    packed: Packed | None = None,
) -> Scored:
    """Log-probability of every completion token given its prompt and the tokens before it.

    Each prompt is run once for its whole group; gradients flow through it. Logits exist for one chunk at a time and are
    recomputed in the backward pass.

    Args:
      model: the policy's functions.
      policy: its weights in the compute dtype.
      prompts: int32[P, L], padded on the right.
      prompt_lengths: int32[P].
      completions: int32[P, G, T], padded on the right with any token.
      temperature: divides the logits, as sampling does; must be positive.
      chunk: tokens of a prompt's completions whose logits exist at once, at most.
      shards: number of devices that hold different rows; divides P.
      packed: the slots in which the policy sees the tokens; None gives every token one, padding too.

    Returns:
      `Scored`; values past a completion's length are finite but have no meaning.
    """
    p, g, t = completions.shape
    packed = packed or _padded(p, g, t, prompts.shape[1])
    everything = jnp.concatenate([completions.reshape(p, -1), prompts], axis=1)
    tokens = _gather(everything, packed.places)
    hidden = model.forward(policy, tokens, prompt_lengths, packed)

    # Hidden states that predict each slot's token: of the token before it, or for a completion's first token of the
    # prompt's last. Completions are in the first G T slots, so only these are scored.
    scored = min(g * t, tokens.shape[1])
    end = jnp.take_along_axis(jnp.asarray(packed.prompt_slots), prompt_lengths[:, None] - 1, axis=1)
    last = jnp.take_along_axis(hidden, end[..., None], axis=1)
    before = jnp.concatenate([last, hidden[:, : scored - 1]], axis=1)
    begins = packed.places[:, :scored] % t == 0
    before = jnp.where(begins[..., None], last, before)
    padded = tokens.shape[1] == everything.shape[1]
    count = None if padded else jnp.sum(packed.slots < tokens.shape[1], axis=(1, 2)).max()
    found = chunked_logprobs(
        model, policy, before, tokens[:, :scored], temperature=temperature, chunk=chunk, shards=shards, count=count
    )
    return jax.tree.map(lambda x: _gather(x, packed.slots), found)


def _padded(p: int, g: int, t: int, length: int) -> Packed:
    """`Packed` with a slot for every token, padding included."""
    places = np.broadcast_to(np.arange(g * t + length, dtype=np.int32), (p, g * t + length))
    return Packed(places, places[:, : g * t].reshape(p, g, t), places[:, g * t :])


def _gather(x: Shaped[Array, "P _"], index: Int[AnyArray, "P *any"]) -> Shaped[Array, "P *any"]:
    """Entries of each x[p], and 0 for those past the end."""
    return jax.vmap(lambda row, at: row.at[at].get(mode="fill", fill_value=0))(x, jnp.asarray(index))


def chunked_logprobs(
    model: Model,
    policy: PyTree,
    hidden: Float[Array, "P C D"],
    tokens: Int[AnyArray, "P C"],
    *,
    temperature: Float[Array, ""],
    chunk: int,
    shards: int = 1,
    count: Int[Array, ""] | None = None,
) -> Scored:
    """`log softmax(unembed(hidden) / temperature)[token]` and the entropy, at most `chunk` slots of each row at a time.

    With `count` only the first so many slots hold tokens to score: chunks behind them are not computed but are zero.
    """
    size = tokens.shape[1]
    chunk = -(-size // -(-size // chunk))
    fill = -size % chunk
    hidden, tokens = jnp.pad(hidden, ((0, 0), (0, fill), (0, 0))), jnp.pad(tokens, ((0, 0), (0, fill)))

    def split(x):
        return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)

    copies = model.spread(policy, shards)
    apart = lambda x: x.reshape(shards, -1, *x.shape[1:])

    def score(hidden, tokens):
        logits = jax.vmap(model.unembed)(copies, apart(hidden)).reshape(*tokens.shape, -1) / temperature
        normalizer, entropy = normalizer_and_entropy(logits)
        chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        return Scored(chosen - normalizer, entropy)

    def nothing(hidden, tokens):
        return Scored(*[jnp.zeros(tokens.shape, jnp.float32)] * 2)

    @partial(jax.checkpoint, prevent_cse=False, policy=jax.checkpoint_policies.save_only_these_names("normalizer"))
    def step(_, inputs):
        start, *inputs = inputs
        return None, score(*inputs) if count is None else jax.lax.cond(start < count, score, nothing, *inputs)

    starts = jnp.arange(0, size + fill, chunk)
    _, scored = jax.lax.scan(step, None, (starts, split(hidden), split(tokens)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(*tokens.shape)[:, :size], scored)


@jax.custom_jvp
def normalizer_and_entropy(logits: Float[Array, "*rows V"]) -> tuple[Float[Array, "*rows"], Float[Array, "*rows"]]:
    """`logsumexp(logits)`, and the entropy of `softmax(logits)` in nats, which carries no gradient.

    Both sums are taken in one pass over the exponentials: four times as fast on CPU as one after the other.
    """
    peak = logits.max(axis=-1, keepdims=True)
    below = logits - peak
    total, moment = _sums(jnp.exp(below), below)
    return peak[..., 0] + jnp.log(total), jnp.log(total) - moment / total


@normalizer_and_entropy.defjvp
def _normalizer_and_entropy_jvp(primals, tangents):
    (logits,), (change,) = primals, tangents
    normalizer, entropy = normalizer_and_entropy(logits)
    normalizer = checkpoint_name(normalizer, "normalizer")
    weighted = jnp.exp(logits - normalizer[..., None]) * change
    return (normalizer, entropy), (weighted.sum(axis=-1), jnp.zeros_like(entropy))


def _sums(weights: Float[Array, "*rows V"], values: Float[Array, "*rows V"]) -> tuple[Array, Array]:
    """Sums over V of weights and of weights · values; first within each of up to `PARTS` parts, for precision."""
    size = weights.shape[-1]
    # Padding a vocabulary that is split over devices would send logits between them.
    parts = math.gcd(size, PARTS) if size % 8 == 0 else PARTS
    fill = [(0, 0)] * (weights.ndim - 1) + [(0, -size % parts)]
    split = lambda x: jnp.pad(x, fill).reshape(*x.shape[:-1], parts, -1)
    add = lambda a, b: (a[0] + b[0], a[1] + b[1])
    zero = np.float32(0)
    total, moment = jax.lax.reduce((split(weights), split(weights * values)), (zero, zero), add, (weights.ndim,))
    return total.sum(axis=-1), moment.sum(axis=-1)
