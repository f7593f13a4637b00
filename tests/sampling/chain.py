"""A model that is a table of logits, and a sampler of it."""

import jax.numpy as jnp

from igrpo_jax.sampling.programs import Pool
from igrpo_jax.sampling.sampler import Sampler
from models.axes import constrain

END, END_OF_TURN = 1, 2


def text(ids):
    """Tokens are bytes; the end tokens are no text."""
    return bytes(i for i in ids if i > END_OF_TURN).decode("utf-8", "replace")


class Chain:
    """A model whose next token depends on the last one only: the policy is a table of logits [V, V].

    Its cache [P, 1, capacity, G] keeps nothing, and gives NaN as soon as more tokens come than it has room for.
    """

    def prefill(self, policy, tokens, lengths):
        return jnp.take_along_axis(tokens, lengths[:, None] - 1, 1).astype(jnp.float32), lengths

    def extend(self, policy, tokens, prefix, cache, used):
        fits = (used + tokens.shape[2] <= cache.shape[2])[..., None, None]
        return jnp.where(fits, tokens[..., None].astype(jnp.float32), jnp.nan), cache

    def forward(self, policy, tokens, prompt_lengths, packed):
        return tokens[..., None].astype(jnp.float32)

    def spread(self, policy, ways):
        return jnp.broadcast_to(policy, (ways, *policy.shape))

    def unembed(self, policy, hidden):
        known = policy[jnp.nan_to_num(hidden[..., 0]).astype(int)]
        return jnp.where(jnp.isnan(hidden), jnp.nan, known)

    def new_prefix(self, policy, size, capacity):
        return constrain(jnp.zeros(size, jnp.int32), "batch")

    def new_cache(self, policy, prefix, num_samples, capacity):
        return constrain(jnp.zeros((prefix.shape[0], 1, capacity, num_samples)), "batch", None, None, None)

    def resize(self, tree, capacity):
        return tree if tree.ndim == 1 else jnp.zeros((*tree.shape[:2], capacity, tree.shape[3]))

    def sampling_view(self, policy, dtype):
        return policy


def sampler_of(
    layout, *, stop_ids=(END, END_OF_TURN), slots=3, lanes=1, prefill=(2,), completions=(12,), tails=(), followers=1
):
    """A sampler whose prompts have up to four tokens."""
    pool = Pool(slots=slots, lanes=lanes, prefill=prefill, prompts=(4,), completions=completions, tails=tails)
    return Sampler(Chain(), layout, pool=pool, seed=0, stop_ids=stop_ids, decode=text, followers=followers)
