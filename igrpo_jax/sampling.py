"""The jitted sampler: one prefill a problem, then decoding in growing own-caches until every row has stopped.

Two programs a shape: `_start` (prefill and the first token) and `_decode` (a `while_loop` up to one cache capacity).
The host only walks through the capacities, so a completion never attends to slots that no completion has reached, and
stops as soon as every row has ended. The first call of a shape walks through all capacities, so that nothing is
compiled later.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from igrpo_jax.config import SamplingConfig
from igrpo_jax.draw import Truncation, draw, row_keys, uniforms
from igrpo_jax.types import KeyArray, Layout, Model, PyTree, Samples

MAX_STOP_IDS = 8
"""Stop ids are padded to this many, so that another stop set compiles nothing."""


class Decoding(NamedTuple):
    """What a half-finished batch of completions consists of.

    Attributes:
      done: rows that have stopped; they ride along without effect.
      last: the token drawn last, not yet in the cache.
      position: completion position that is drawn next.
    """

    tokens: Int[Array, "P G T"]
    logprobs: Float[Array, "P G T"] | None
    lengths: Int[Array, "P G"]
    done: Bool[Array, "P G"]
    last: Int[Array, "P G"]
    position: Int[Array, ""]
    cache: PyTree


def capacities(size: int, first: int = 64) -> list[int]:
    """Cache sizes a completion of up to `size` tokens grows through: 64, 96, 128, 192, 256, ... and `size` itself.

    >>> capacities(200)
    [64, 96, 128, 192, 200]
    """
    sizes, step = [], first
    while step < size:
        sizes += [step, step * 3 // 2]
        step *= 2
    return [s for s in sizes if s < size] + [size]


class Sampler:
    """Draws completions from a sampling view; `sampler(view, prompts, ...) -> Samples`.

    Randomness is keyed by (seed, step, stage, problem id, sample, token): a completion depends on nothing else in the
    batch, on no padding and on no device count.
    """

    def __init__(
        self,
        model: Model,
        layout: Layout,
        *,
        seed: int,
        stop_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str],
    ):
        """Wraps the model's functions.

        Args:
          model: see `igrpo_jax.types.Model`.
          layout: see `igrpo_jax.types.Layout`.
          seed: the run's seed.
          stop_ids: token ids that end a completion, at most `MAX_STOP_IDS`.
          decode: text of token ids, used to find stop strings.

        Raises:
          ValueError: too many stop ids, or none.
        """
        self._layout = layout
        self._key = layout.everywhere(jax.random.key(seed))
        self._stops = padded_stops(stop_ids)
        self._text = decode
        self._warm: set[tuple] = set()
        static = ("num_samples", "size", "capacity", "with_logprobs")
        self._start = jax.jit(partial(_start, model), static_argnames=static)
        self._grow = jax.jit(model.grow_cache, static_argnames=("capacity",))
        self._decode = jax.jit(partial(_decode, model), static_argnames=("capacity",), donate_argnames=("state",))

    def __call__(
        self,
        view: PyTree,
        prompts: Sequence[Sequence[int]],
        *,
        ids: Sequence[int],
        step: int,
        stage: int,
        num_samples: int,
        prompt_length: int,
        settings: SamplingConfig,
        logprobs: bool = False,
        stop_ids: Sequence[int] | None = None,
    ) -> Samples:
        """Samples `num_samples` completions of every prompt.

        Args:
          view: the policy as `Model.sampling_view` lays it out.
          prompts: P token lists, none empty or longer than `prompt_length`.
          ids: P problem identities, from 0 to below 2**32.
          step: training step, part of the random key.
          stage: 1 for drafts, 2 for refinements, part of the random key.
          num_samples: G.
          prompt_length: L, the static length that prompts are padded to.
          settings: temperature, truncation, length and stop strings; changing values other than
            `max_completion_length` compiles nothing.
          logprobs: also return log-probabilities.
          stop_ids: other stop ids for this call.

        Raises:
          ValueError: a prompt is empty or longer than `prompt_length`, or prompts and ids do not match.
        """
        if len(ids) != len(prompts):
            raise ValueError(f"{len(ids)} ids for {len(prompts)} prompts; give one each, they key the randomness")
        stop_set = self._stops if stop_ids is None else padded_stops(stop_ids)
        size = settings.max_completion_length
        tokens, lengths = pad_prompts(prompts, prompt_length)
        count = len(prompts)
        fill = -count % self._layout.num_row_shards
        rows = (np.pad(tokens, ((0, fill), (0, 0))), np.pad(lengths, (0, fill), constant_values=1))
        ids_ = np.pad(np.asarray(ids, np.uint32), (0, fill))
        exists = np.arange(count + fill) < count
        tokens, lengths, ids_, exists = self._layout.rows((*rows, ids_, exists))
        truncation, stops, step_, stage_ = self._layout.everywhere(
            (_truncation(settings), stop_set, np.int32(step), np.int32(stage))
        )
        steps = capacities(max(size - 1, 1))
        keys, prefix, state = self._start(
            view, tokens, lengths, ids_, exists, self._key, step_, stage_, truncation, stops,
            num_samples=num_samples, size=size, capacity=steps[0], with_logprobs=logprobs,
        )  # fmt: skip
        shape = (count + fill, prompt_length, num_samples, size, logprobs)
        for capacity in steps if size > 1 else ():
            if capacity != steps[0]:
                state = state._replace(cache=self._grow(state.cache, capacity=capacity))
            state = self._decode(view, prefix, keys, truncation, stops, state=state, capacity=capacity)
            if settings.stop_strings:
                state = self._stop_at_strings(state, settings.stop_strings)
            if shape in self._warm and jax.device_get(state.done).all():
                break
        self._warm.add(shape)
        return self._finish(state, count, stop_set, settings.stop_strings)

    def _stop_at_strings(self, state: Decoding, strings: tuple[str, ...]) -> Decoding:
        """Marks rows whose text holds a stop string as done."""
        tokens, lengths, done = jax.device_get((state.tokens, state.lengths, state.done))
        done = np.array(done)
        for row in zip(*np.nonzero(~done), strict=True):
            text = self._text(tokens[row][: lengths[row]].tolist())
            done[row] = any(s in text for s in strings)
        return state._replace(done=self._layout.rows(done))

    def _finish(self, state: Decoding, count: int, stops: np.ndarray, strings: tuple[str, ...]) -> Samples:
        """Fetches the completions and cuts each behind its first stop string."""
        fetched = jax.device_get((state.tokens, state.lengths, state.logprobs))
        tokens, lengths, logprobs = jax.tree.map(lambda x: np.array(x[:count]), fetched)
        ended = np.isin(np.take_along_axis(tokens, lengths[..., None] - 1, axis=2)[..., 0], stops)
        if strings:
            for row in np.ndindex(lengths.shape):
                cut = stop_string_length(tokens[row][: lengths[row]].tolist(), strings, self._text)
                if cut is not None:
                    lengths[row], ended[row] = cut, True
        beyond = np.arange(tokens.shape[2]) >= lengths[..., None]
        tokens[beyond] = 0
        if logprobs is not None:
            logprobs[beyond] = 0.0
        return Samples(tokens, lengths, ended, logprobs)


def padded_stops(stop_ids: Sequence[int]) -> np.ndarray:
    """int32[MAX_STOP_IDS], filled up with -1, which no token is.

    Raises:
      ValueError: too many stop ids, or none.
    """
    if not 0 < len(stop_ids) <= MAX_STOP_IDS:
        raise ValueError(f"{len(stop_ids)} stop ids were given; give 1 to {MAX_STOP_IDS}")
    stops = np.full(MAX_STOP_IDS, -1, np.int32)
    stops[: len(stop_ids)] = list(stop_ids)
    return stops


def pad_prompts(prompts: Sequence[Sequence[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts padded on the right with 0 to int32[P, size], and their lengths int32[P].

    Raises:
      ValueError: a prompt is empty or too long.
    """
    if not prompts:
        raise ValueError("no prompts were given; give at least one")
    lengths = np.array([len(p) for p in prompts], np.int32)
    if lengths.min() < 1 or lengths.max() > size:
        bad = int(np.argmax((lengths < 1) | (lengths > size)))
        raise ValueError(
            f"prompt {bad} has {lengths[bad]} tokens; prompts need 1 to {size}: raise prompt.max_prompt_length or "
            "shorten the question"
        )
    tokens = np.zeros((len(prompts), size), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    return tokens, lengths


def stop_string_length(tokens: list[int], strings: tuple[str, ...], decode: Callable) -> int | None:
    """Number of leading tokens whose text first holds a stop string; None if it never does.

    Found by bisection: once a prefix of the completion holds the string, every longer prefix does.
    """
    found = lambda n: any(s in decode(tokens[:n]) for s in strings)
    if not found(len(tokens)):
        return None
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle + 1, high)
    return low


def _truncation(settings: SamplingConfig) -> Truncation:
    return Truncation(
        np.float32(settings.temperature),
        np.int32(settings.top_k),
        np.float32(settings.top_p),
        np.float32(settings.min_p),
    )


def _start(
    model: Model,
    view: PyTree,
    tokens: Int[Array, "P L"],
    lengths: Int[Array, " P"],
    ids: UInt32[Array, " P"],
    exists: Bool[Array, " P"],
    seed: KeyArray,
    step: Int[Array, ""],
    stage: Int[Array, ""],
    truncation: Truncation,
    stops: Int[Array, " stops"],
    *,
    num_samples: int,
    size: int,
    capacity: int,
    with_logprobs: bool,
) -> tuple[Key[Array, "P G"], PyTree, Decoding]:
    """Prefills every prompt once and draws each sample's first token."""
    keys = row_keys(seed, step, stage, ids, num_samples)
    last, prefix = model.prefill(view, tokens, lengths)
    shape = (tokens.shape[0], num_samples)
    logits = jnp.repeat(model.unembed(view, last)[:, None], num_samples, axis=1)
    state = Decoding(
        tokens=jnp.zeros((*shape, size), jnp.int32),
        logprobs=jnp.zeros((*shape, size), jnp.float32) if with_logprobs else None,
        lengths=jnp.zeros(shape, jnp.int32),
        done=jnp.broadcast_to(~exists[:, None], shape),
        last=jnp.zeros(shape, jnp.int32),
        position=jnp.zeros((), jnp.int32),
        cache=model.new_cache(view, prefix, num_samples, capacity),
    )
    return keys, prefix, _append(state, logits, keys, truncation, stops)


def _decode(
    model: Model,
    view: PyTree,
    prefix: PyTree,
    keys: Key[Array, "P G"],
    truncation: Truncation,
    stops: Int[Array, " stops"],
    *,
    state: Decoding,
    capacity: int,
) -> Decoding:
    """Draws tokens until the cache of `capacity` own tokens is full or every row is done."""

    def unfinished(state: Decoding):
        return (state.position <= capacity) & jnp.any(jnp.logical_not(state.done))

    def token(state: Decoding) -> Decoding:
        hidden, cache = model.extend(view, state.last[..., None], prefix, state.cache)
        logits = model.unembed(view, hidden[:, :, 0])
        return _append(state._replace(cache=cache), logits, keys, truncation, stops)

    return jax.lax.while_loop(unfinished, token, state)


def _append(state: Decoding, logits: Array, keys: Array, truncation: Truncation, stops: Array) -> Decoding:
    """Draws one token a row and writes it down for the rows that go on."""
    tokens, logprobs = draw(logits, uniforms(keys, state.position), truncation)
    going = jnp.logical_not(state.done)
    tokens = jnp.where(going, tokens, 0)
    logged = state.logprobs
    if logged is not None:
        logprobs = jnp.where(going, logprobs, 0.0)[..., None]
        logged = jax.lax.dynamic_update_slice_in_dim(logged, logprobs, state.position, axis=2)
    return state._replace(
        tokens=jax.lax.dynamic_update_slice_in_dim(state.tokens, tokens[..., None], state.position, axis=2),
        logprobs=logged,
        lengths=state.lengths + going,
        done=state.done | jnp.any(tokens[..., None] == stops[None, None, :], axis=-1),
        last=tokens,
        position=state.position + 1,
    )
