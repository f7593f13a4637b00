"""Cutting a batch into micro-batches: every completion once, in few shapes, with little padding."""

import numpy as np
import pytest

from igrpo_jax.learning.microbatches import Completions, micro_batches
from igrpo_jax.types import Batch


def batch(lengths, prompt_lengths, *, size, prompt_size):
    """Tokens, weights and log-probabilities that are 1000 x row + position; prompts are 100 x row + position."""
    lengths = np.array(lengths, np.int32)
    rows = np.arange(lengths.size, dtype=np.int32).reshape(lengths.shape)
    tokens = 1000 * rows[..., None] + np.arange(size, dtype=np.int32)
    prompts = 100 * np.arange(len(lengths), dtype=np.int32)[:, None] + np.arange(prompt_size, dtype=np.int32)
    made = Batch(lengths, rows.astype(np.float32) + 1, weights=tokens.astype(np.float32))
    return Completions(prompts, np.array(prompt_lengths, np.int32), tokens, made, tokens.astype(np.float32))


@pytest.mark.parametrize(
    ("rows", "shards", "shape"),
    [
        (4, 1, (4, 1, 4)),  # M, p, g
        (8, 1, (2, 2, 4)),
        (2, 1, (8, 1, 2)),
        (1, 8, (2, 8, 1)),
        (3, 1, (6, 3, 1)),  # 16 completions in threes: two are missing
        (6, 2, (2, 4, 2)),  # 8 halves of groups, at most 2 x 3 at a time
        (16, 1, (1, 4, 4)),
        (32, 4, (1, 4, 4)),  # room for more than there is
    ],
)
def test_every_completion_is_there_once_with_its_own_prompt(rows, shards, shape):
    """What fills up has length 0 and a prompt of length 1."""
    lengths = np.random.default_rng(0).integers(1, 7, (4, 4))
    whole = batch(lengths, [5, 2, 4, 1], size=6, prompt_size=5)
    cut = micro_batches(whole, rows=rows, shards=shards, keep_dead=False)
    micro, prompts, group = shape
    assert len(cut.parts) == micro and len(cut.menu) == 1
    seen = []
    for part in [*cut.parts, *cut.menu]:
        assert part.tokens.shape == part.sampled_logprobs.shape == part.batch.weights.shape == (prompts, group, 6)
        assert (part.prompts.shape, part.prompt_lengths.shape) == ((prompts, 5), (prompts,))
        assert part.batch.lengths.shape == part.batch.advantages.shape == (prompts, group)
        assert part.batch.old_logprobs is None
        for p, g in np.ndindex(prompts, group):
            row = int(part.batch.advantages[p, g]) - 1
            if row < 0:
                assert part.batch.lengths[p, g] == 0 and part.prompt_lengths[p] == 1 and not part.tokens[p, g].any()
                continue
            seen.append(row)
            assert part.batch.lengths[p, g] == lengths.flat[row]
            np.testing.assert_array_equal(part.tokens[p, g], 1000 * row + np.arange(6))
            np.testing.assert_array_equal(part.sampled_logprobs[p, g], part.tokens[p, g])
            np.testing.assert_array_equal(part.batch.weights[p, g], part.tokens[p, g])
            np.testing.assert_array_equal(part.prompts[p], 100 * (row // 4) + np.arange(5))
            assert part.prompt_lengths[p] == whole.prompt_lengths[row // 4]
    assert sorted(seen) == list(range(16))
    assert not any(part.batch.lengths.any() for part in cut.menu)
    copies = 4 // group
    assert cut.real_tokens == 12 * copies + lengths.sum()
    assert cut.computed_tokens == micro * prompts * (5 + group * 6)


def shapes(parts):
    """Prompt, completion and slots of each."""
    return [(part.prompts.shape[1], part.tokens.shape[2], part.packed.places.shape[1]) for part in parts]


def test_micro_batches_are_as_short_as_their_own_completions_and_prompts():
    """Two pairs of a problem: completions of up to 1000 tokens in 256, 512 or 1000; prompts in 128 or 256."""
    lengths = [[20, 510, 130, 60], [20, 130, 1, 2], [600, 1, 190, 2], [20, 700, 3, 600]]
    whole = batch(lengths, [200, 100, 129, 128], size=1000, prompt_size=256)
    cut = micro_batches(whole, rows=2, shards=1, keep_dead=False)
    # The pairs are (20, 60) (130, 510); (1, 2) (20, 130); (1, 2) (190, 600); (3, 20) (600, 700).
    # With their prompts 128 + 1300, 129 + 790, 200 + 640, 200 + 80, 129 + 3, 128 + 23, 100 + 150, 100 + 3.
    assert shapes(cut.parts) == [
        (256, 1000, 1728), (256, 1000, 1152), (256, 512, 960),
        (256, 512, 640), (256, 512, 640), (128, 256, 320), (128, 256, 320), (128, 256, 320),
    ]  # fmt: skip
    assert shapes(cut.menu) == [
        (128, 256, 320), (128, 256, 512), (256, 512, 640), (256, 512, 960),
        (256, 1000, 896), (256, 1000, 1152), (256, 1000, 1728), (256, 1000, 2256),
    ]  # fmt: skip
    assert {part.tokens.shape[:2] for part in [*cut.parts, *cut.menu]} == {(1, 2)}
    assert cut.real_tokens == 2 * (200 + 100 + 129 + 128) + np.sum(lengths)
    assert cut.computed_tokens == sum(slots for _, _, slots in shapes(cut.parts))
    for part in cut.parts:
        assert part.batch.lengths.max() <= part.tokens.shape[2] and part.prompt_lengths.max() <= part.prompts.shape[1]


def test_everything_real_is_packed_once_one_behind_the_other():
    whole = batch([[100, 3, 250, 40], [1, 1, 1, 300], [300, 300, 300, 300]], [5, 9, 7], size=300, prompt_size=10)
    cut = micro_batches(whole, rows=4, shards=1, keep_dead=False)
    assert shapes(cut.parts) == [(10, 300, 1210), (10, 300, 512), (10, 300, 512)]
    for part in cut.parts:
        (places,), (slots,), (prompt_slots,) = part.packed
        empty = 4 * 300 + 10
        order = [g * 300 + t for g, length in enumerate(part.batch.lengths[0]) for t in range(length)]
        order += [4 * 300 + place for place in range(part.prompt_lengths[0])]
        np.testing.assert_array_equal(places[: len(order)], order)
        assert (places[len(order) :] == empty).all()
        where = np.concatenate([slots.ravel(), prompt_slots])
        np.testing.assert_array_equal(where[order], np.arange(len(order)))
        assert (np.delete(where, order) == len(places)).all()
    for part in cut.menu:  # nothing but a prompt of one token
        assert (part.packed.slots == part.packed.places.size).all()


def test_dead_groups_leave_and_what_fills_up_is_as_short_as_the_rest():
    whole = batch(np.full((6, 2), [[40], [300], [40], [40], [300], [40]]), [10] * 6, size=512, prompt_size=64)
    whole.batch.advantages[[0, 4]] = 0
    cut = micro_batches(whole, rows=6, shards=1, keep_dead=False)
    assert (cut.dead_groups, cut.groups) == (2, 6)
    assert [part.tokens.shape for part in cut.parts] == [(3, 2, 512), (3, 2, 128)]
    assert shapes(cut.parts) == [(64, 512, 832), (64, 128, 256)]
    assert [part.batch.lengths.tolist() for part in cut.parts] == [
        [[300, 300], [40, 40], [40, 40]],
        [[40, 40], [0, 0], [0, 0]],
    ]
    kept = micro_batches(whole, rows=6, shards=1, keep_dead=True)
    assert kept.dead_groups == 0 and sum((part.batch.lengths > 0).sum() for part in kept.parts) == 12
    whole.batch.advantages[:] = 0
    none = micro_batches(whole, rows=6, shards=1, keep_dead=False)
    assert none.parts == [] and shapes(none.menu) == shapes(cut.menu) and none.computed_tokens == 0
