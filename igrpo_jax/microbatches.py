"""Completions in micro-batches of few static shapes, formed by length on the host."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from igrpo_jax.types import AnyArray, Batch, Packed

MULTIPLE = 64
"""Shorter shapes are multiples of this many tokens."""

SHORTEST = 128
"""Shapes of fewer tokens are not worth a program of their own."""


class Completions(NamedTuple):
    """Completions to train on, with their prompts.

    Attributes:
      prompts: int32[P, L].
      prompt_lengths: int32[P].
      tokens: int32[P, G, T].
      batch: what the loss needs, [P, G] or [P, G, T].
      sampled_logprobs: float32[P, G, T], the sampler's own, to report how far the trainer's are from them.
      packed: where the tokens are if only attention is to see padding; None if all of the policy is to.
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
      most: how many there are without dead groups.
      menu: an empty micro-batch of every shape that any batch of this size can be cut into.
      real_tokens: of prompts and completions in `parts`, a prompt counted once for every row that computes it.
      computed_tokens: the same, padding included.
      dead_groups, groups: groups without any advantage, which `parts` leave out, and all.
    """

    parts: list[Completions]
    most: int
    menu: list[Completions]
    real_tokens: int
    computed_tokens: int
    dead_groups: int
    groups: int


def buckets(size: int, halvings: int) -> tuple[int, ...]:
    """Ascending static lengths up to `size`: its halves too, unless they would be short or save little.

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
    """Of a micro-batch's completions: T, and slots that all completions of a prompt share, g T where none is packed."""

    size: int
    slots: int


def shapes(longest: int, group: int) -> tuple[Shape, ...]:
    """Ascending shapes for completions of up to `longest` tokens, `group` of a prompt; the last one takes any.

    Unless they would be short, the others have slots for half of all places: there completions are packed.

    >>> [tuple(shape) for shape in shapes(4096, 4)]
    [(1024, 2048), (2048, 4096), (4096, 8192), (4096, 16384)]
    >>> [tuple(shape) for shape in shapes(4096, 1)], [tuple(shape) for shape in shapes(128, 4)]
    ([(1024, 1024), (2048, 2048), (4096, 4096)], [(128, 512)])
    """
    halves = 2 if group > 1 and longest > SHORTEST else 1
    found = [Shape(size, group * size // halves) for size in buckets(longest, 2)]
    return (*found, Shape(longest, group * longest)) if halves > 1 else tuple(found)


def micro_batches(whole: Completions, *, rows: int, shards: int, keep_dead: bool) -> Portions:
    """Cuts a batch into micro-batches of `rows` completions a shard, on the host.

    A group whose G does not fit is cut into sub-groups that share the prompt, its completions sorted by length. The
    sub-groups are sorted by what they need too, so that a micro-batch has no more slots and no longer rows than its own
    completions and prompts need, up to the next of a few `shapes` and `buckets`. All micro-batches have one number of
    rows, no larger than a batch of this size needs; what is missing is filled up with completions of length 0, which do
    not count.

    Args:
      whole: [P, ...] arrays of numpy, `batch.weights` made from all of it.
      rows: completions a shard trains on at once, at most.
      shards: number of devices that hold different rows.
      keep_dead: keeps groups whose advantages are all zero; they have a gradient only if beta > 0.

    Returns:
      Micro-batches [p, g, ...] where p is a multiple of shards, with g = gcd(G, rows) completions a prompt and p x g at
      most shards x rows.
    """
    p, g, longest = whole.tokens.shape
    part = int(np.gcd(g, rows))
    copies = g // part
    micro = -(-p * copies // (shards * (rows // part)))
    per_micro = shards * -(-p * copies // (micro * shards))

    cut = _sub_groups(whole, copies)
    prompt_sizes, sizes = buckets(whole.prompts.shape[1], 1), shapes(longest, part)
    prompt_bucket = np.searchsorted(prompt_sizes, cut.prompt_lengths)
    bucket = np.maximum(
        np.searchsorted([shape.size for shape in sizes], cut.batch.lengths.max(axis=1)),
        np.searchsorted([shape.slots for shape in sizes], cut.batch.lengths.sum(axis=1)),
    )
    alive = np.any(whole.batch.advantages != 0, axis=1) | keep_dead
    chosen = np.flatnonzero(np.repeat(alive, copies))
    chosen = chosen[np.lexsort((-prompt_bucket[chosen], -bucket[chosen]))]

    portions = Portions([], micro, [], 0, 0, int(p - alive.sum()), p)
    for start in range(0, len(chosen), per_micro):
        index = chosen[start : start + per_micro]
        size = (prompt_sizes[prompt_bucket[index].max()], sizes[bucket[index].max()])
        portions.parts.append(_take(cut, index, per_micro, *size))
    slots = lambda part: part.tokens.size if part.packed is None else part.packed.places.size
    return portions._replace(
        menu=[_take(cut, chosen[:0], per_micro, prompt, shape) for prompt in prompt_sizes for shape in sizes],
        real_tokens=int(cut.prompt_lengths[chosen].sum() + cut.batch.lengths[chosen].sum()),
        computed_tokens=sum(part.prompts.size + slots(part) for part in portions.parts),
    )


def _sub_groups(whole: Completions, copies: int) -> Completions:
    """The same with every group, its completions sorted by length, cut into `copies` of a prompt's rows."""
    order = np.argsort(whole.batch.lengths, axis=1, kind="stable")

    def cut(x: AnyArray) -> np.ndarray:
        x = np.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1)
        return x.reshape(x.shape[0] * copies, -1, *x.shape[2:])

    samples = jax.tree.map(cut, (whole.tokens, whole.batch, whole.sampled_logprobs))
    return Completions(np.repeat(whole.prompts, copies, 0), np.repeat(whole.prompt_lengths, copies), *samples)


def _take(cut: Completions, index: np.ndarray, rows: int, prompt_size: int, shape: Shape) -> Completions:
    """Those sub-groups cut to a shape, filled up with empty ones."""

    def take(x: AnyArray, length: int | None = None) -> np.ndarray:
        x = x[index][..., :length]
        return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])

    samples = (cut.tokens, cut.batch, cut.sampled_logprobs)
    tokens, batch, sampled = jax.tree.map(lambda x: take(x, shape.size if x.ndim == 3 else None), samples)
    packed = None if shape.slots == tokens.shape[1] * shape.size else pack(batch.lengths, shape)
    prompts, lengths = take(cut.prompts, prompt_size), np.maximum(take(cut.prompt_lengths), 1)
    return Completions(prompts, lengths, tokens, batch, sampled, packed)


def pack(lengths: Int[np.ndarray, "P G"], shape: Shape) -> Packed:
    """The completions of each prompt one behind the other.

    >>> pack(np.array([[1, 2]]), Shape(size=3, slots=4))
    Packed(places=array([[0, 3, 4, 6]], dtype=int32), slots=array([[[0, 4, 4],
            [1, 2, 4]]], dtype=int32))
    """
    p, g = lengths.shape
    real = np.arange(shape.size) < lengths[..., None]
    places = np.full((p, shape.slots), g * shape.size, np.int32)
    slots = np.full((p, g * shape.size), shape.slots, np.int32)
    for row, some in enumerate(real.reshape(p, -1)):
        there = np.flatnonzero(some)
        places[row, : len(there)] = there
        slots[row, there] = np.arange(len(there))
    return Packed(places, slots.reshape(real.shape))
