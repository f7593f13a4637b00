"""Cuts a batch of completions, on the host, into micro-batches of similar lengths that have one of a few shapes."""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from igrpo_jax.types import AnyArray, Batch, Packed

MULTIPLE = 64
"""Shapes shorter than the longest are rounded up to a multiple of this many tokens."""

SHORTEST = 128
"""No shape is made for completions or prompts of fewer tokens: it would not be worth compiling a program."""

FEWEST = 256
"""No shape is made that has fewer slots for a prompt and its completions."""


class Completions(NamedTuple):
    """Completions to train on, with their prompts.

    Attributes:
      prompts: int32[P, L].
      prompt_lengths: int32[P].
      tokens: int32[P, G, T].
      batch: what the loss needs, [P, G] or [P, G, T].
      sampled_logprobs: float32[P, G, T], the sampler's own, to report how far the trainer's are from them.
      packed: the slots in which the policy sees the tokens; None before they are cut into micro-batches.
    """

    prompts: Int[AnyArray, "P L"]
    prompt_lengths: Int[AnyArray, " P"]
    tokens: Int[AnyArray, "P G T"]
    batch: Batch
    sampled_logprobs: Float[AnyArray, "P G T"] | None = None
    packed: Packed | None = None


class Portions(NamedTuple):
    """A batch cut into micro-batches.

    Attributes:
      parts: the micro-batches, longest first.
      places: of each, int[p', g]: which completion of the whole batch, counted through, each of its first p' g ones is.
      most: how many there would be if no group were dead.
      menu: an empty micro-batch of every shape that any batch of this size can be cut into.
      real_tokens: tokens of prompts and completions in `parts`; a prompt counts once for every sub-group it is in.
      computed_tokens: all slots of `parts`, so real tokens and padding.
      dead_groups: groups without any advantage, or of masked or missing completions alone, which `parts` leave out.
      groups: all groups of the batch.
    """

    parts: list[Completions]
    places: list[np.ndarray]
    most: int
    menu: list[Completions]
    real_tokens: int
    computed_tokens: int
    dead_groups: int
    groups: int


def buckets(size: int, halvings: int) -> tuple[int, ...]:
    """Static lengths to choose from, ascending: `size` and its repeated halves, unless short or hardly shorter.

    >>> buckets(4096, 2), buckets(1500, 2), buckets(200, 2), buckets(160, 2), buckets(24, 2)
    ((1024, 2048, 4096), (384, 768, 1500), (128, 200), (160,), (24,))
    """
    found = [size]
    for power in range(1, halvings + 1):
        length = max(-(-size // (2**power * MULTIPLE)) * MULTIPLE, SHORTEST)
        if length <= 0.75 * found[0]:
            found.insert(0, length)
    return tuple(found)


class Shape(NamedTuple):
    """Static sizes of a micro-batch.

    Attributes:
      prompt: L.
      size: T.
      slots: C, in which a prompt and its g completions lie end to end; L + g T has room for all of them at full length.
    """

    prompt: int
    size: int
    slots: int


def shapes(prompt: int, longest: int, group: int) -> tuple[Shape, ...]:
    """All shapes that micro-batches may have, ascending; the last has room for any.

    Completions are seldom all as long as the longest, so most shapes have fewer slots than L + g T.

    Args:
      prompt: tokens of the longest prompt.
      longest: tokens of the longest completion.
      group: g, completions a prompt in a micro-batch.

    >>> [tuple(shape) for shape in shapes(512, 1024, 4)]  # doctest: +NORMALIZE_WHITESPACE
    [(256, 256, 640), (256, 256, 960), (512, 512, 1280), (512, 512, 1920),
     (512, 1024, 1728), (512, 1024, 2304), (512, 1024, 3456), (512, 1024, 4608)]
    >>> [tuple(shape) for shape in shapes(96, 32, 4)]
    [(96, 32, 224)]
    """
    prompts, sizes = buckets(prompt, 1), buckets(longest, 2)
    pairs = dict.fromkeys([(prompts[0], sizes[0]), *((prompt, size) for size in sizes[1:] or sizes)])
    found = {}
    for length, size in pairs:
        whole, last = length + group * size, (length, size) == (prompt, longest)
        for part in (0.375, 0.5, 0.75) if last else (0.5, 0.75):
            slots = -(-math.ceil(part * whole) // MULTIPLE) * MULTIPLE
            if FEWEST <= slots < whole:
                found[Shape(length, size, slots)] = None
    return (*found, Shape(prompt, longest, prompt + group * longest))


def micro_batches(whole: Completions, *, rows: int, shards: int, keep_dead: bool) -> Portions:
    """Cuts a batch into micro-batches of at most `rows` completions a shard, on the host.

    A group that is larger than `rows` is cut into sub-groups, by length, each with the group's prompt. Then sub-groups
    are sorted by the shape and the tokens they need, and neighbors form a micro-batch, which gets the smallest of the
    `shapes` that has room for them. All micro-batches have the same number of rows; the last is filled up with
    completions of length 0, which do not count. Masked completions, of length 0 too, stay where they are, but
    sub-groups of nothing else are left out.

    Args:
      whole: [P, ...] arrays of numpy, `batch.weights` made from all of it.
      rows: completions a shard trains on at once, at most.
      shards: number of devices that hold different rows.
      keep_dead: whether groups whose advantages are all zero are kept; they have a gradient only if beta > 0.

    Returns:
      Micro-batches [p, g, ...] where p is a multiple of shards, with g = gcd(G, rows) completions a prompt and p x g at
      most shards x rows.
    """
    p, g, longest = whole.tokens.shape
    part = int(np.gcd(g, rows))
    copies = g // part
    micro = -(-p * copies // (shards * (rows // part)))
    per_micro = shards * -(-p * copies // (micro * shards))

    cut, places = _sub_groups(whole, copies)
    menu = shapes(whole.prompts.shape[1], longest, part)
    tokens = cut.prompt_lengths + cut.batch.lengths.sum(axis=1)
    needs = np.stack([cut.prompt_lengths, cut.batch.lengths.max(axis=1), tokens], axis=1)
    first = lambda need: np.all(np.array(menu) >= need[..., None, :], axis=-1).argmax(axis=-1)
    alive = np.any((keep_dead | (whole.batch.advantages != 0)) & (whole.batch.lengths > 0), axis=1)
    chosen = np.flatnonzero(np.repeat(alive, copies) & np.any(cut.batch.lengths > 0, axis=1))
    chosen = chosen[np.lexsort((-tokens[chosen], -first(needs[chosen])))]

    together = [chosen[start : start + per_micro] for start in range(0, len(chosen), per_micro)]
    taken = [menu[first(needs[index].max(axis=0))] for index in together]
    return Portions(
        parts=[_take(cut, index, per_micro, shape) for index, shape in zip(together, taken, strict=True)],
        places=[places[index] for index in together],
        most=micro,
        menu=[_take(cut, chosen[:0], per_micro, shape) for shape in menu],
        real_tokens=int(tokens[chosen].sum()),
        computed_tokens=per_micro * sum(shape.slots for shape in taken),
        dead_groups=int(p - alive.sum()),
        groups=p,
    )


def _sub_groups(whole: Completions, copies: int) -> tuple[Completions, np.ndarray]:
    """Completions with every group sorted by length and cut into `copies` sub-groups, each with the prompt.

    Beside them, which completion of the whole batch each is.
    """
    order = np.argsort(whole.batch.lengths, axis=1, kind="stable")

    def cut(x: AnyArray) -> np.ndarray:
        x = np.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1)
        return x.reshape(x.shape[0] * copies, -1, *x.shape[2:])

    samples = jax.tree.map(cut, (whole.tokens, whole.batch, whole.sampled_logprobs))
    prompts, lengths = np.repeat(whole.prompts, copies, 0), np.repeat(whole.prompt_lengths, copies)
    return Completions(prompts, lengths, *samples), cut(np.arange(order.size).reshape(order.shape))


def _take(cut: Completions, index: np.ndarray, rows: int, shape: Shape) -> Completions:
    """The micro-batch of some sub-groups, cut to a shape and filled up with empty sub-groups to `rows` of them."""

    def take(x: AnyArray, length: int | None = None) -> np.ndarray:
        x = x[index][..., :length]
        return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])

    samples = (cut.tokens, cut.batch, cut.sampled_logprobs)
    tokens, batch, sampled = jax.tree.map(lambda x: take(x, shape.size if x.ndim == 3 else None), samples)
    prompts, lengths = take(cut.prompts, shape.prompt), np.maximum(take(cut.prompt_lengths), 1)
    return Completions(prompts, lengths, tokens, batch, sampled, pack(lengths, batch.lengths, shape))


def pack(prompt_lengths: Int[np.ndarray, " P"], lengths: Int[np.ndarray, "P G"], shape: Shape) -> Packed:
    """Where each token goes when the completions of a prompt lie end to end, and behind them the prompt.

    >>> pack(np.array([2]), np.array([[1, 2]]), Shape(prompt=2, size=3, slots=6))
    Packed(places=array([[0, 3, 4, 6, 7, 8]], dtype=int32), slots=array([[[0, 6, 6],
            [1, 2, 6]]], dtype=int32), prompt_slots=array([[3, 4]], dtype=int32))
    """
    own = np.arange(shape.size) < lengths[..., None]
    real = np.concatenate([own.reshape(len(own), -1), np.arange(shape.prompt) < prompt_lengths[:, None]], axis=1)
    places = np.full((len(own), shape.slots), real.shape[1], np.int32)
    slots = np.full(real.shape, shape.slots, np.int32)
    for row, some in enumerate(real):
        there = np.flatnonzero(some)
        places[row, : len(there)] = there
        slots[row, there] = np.arange(len(there))
    return Packed(places, slots[:, : own[0].size].reshape(own.shape), slots[:, own[0].size :])
