"""The sampler on a scripted chain of tokens: stopping, cutting, slots, errors."""

import threading
from concurrent.futures import wait
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from igrpo_jax.config import SamplingConfig
from igrpo_jax.sampling import flight, stopping
from igrpo_jax.sampling.stopping import stop_string_length
from igrpo_jax.types import Request
from tests.sampling.chain import END, END_OF_TURN, sampler_of, text

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def following_at_once(monkeypatch):
    """What follows has come whenever the sampler asks, and it asks after every step."""
    arrived = flight.Flight.arrived
    monkeypatch.setattr(flight, "PATIENCE", 1)
    monkeypatch.setattr(flight.Flight, "arrived", lambda self: wait(self.following) and arrived(self))


@pytest.fixture(scope="module")
def written(one):
    """Samples that spell out, from the prompt's last character on, the one way through a text of unlike characters."""
    sampler = sampler_of(one)

    def run(script, starts, *, stop_strings=(), length=12, **changes):
        table = np.full((256, 256), -np.inf, np.float32)
        codes = list(script) if isinstance(script, bytes) else [*script.encode(), END]
        table[np.arange(256), np.arange(256)] = 0.0  # what is not in the text repeats itself for ever
        for here, there in pairwise(codes):
            table[here] = -np.inf
            table[here, there] = 0.0
        settings = SamplingConfig(max_completion_length=length, temperature=1.0, stop_strings=stop_strings)
        prompts = [[9, ord(c)] for c in starts]
        return (changes.get("sampler") or sampler).complete(
            one.everywhere(table), prompts, ids=range(len(prompts)), step=0, stage=1, num_samples=1, settings=settings
        )

    return run


def completions(samples):
    return [text(row[:n]) for row, n in zip(samples.tokens[:, 0], samples.lengths[:, 0], strict=True)]


def test_the_end_token_is_part_of_the_completion(written):
    samples = written("abcdefg", "adz")
    np.testing.assert_array_equal(samples.lengths, [[7], [4], [12]])
    np.testing.assert_array_equal(samples.ended, [[True], [True], [False]])
    assert samples.tokens[1, 0].tolist() == [*b"efg", END, *[0] * 8]
    assert completions(samples) == ["bcdefg", "efg", "z" * 12]
    np.testing.assert_array_equal(samples.logprobs, np.zeros((3, 1, 12)))
    assert (samples.tokens.dtype, samples.lengths.dtype, samples.logprobs.dtype) == ("int32", "int32", "float32")


def test_every_stop_id_ends(written):
    samples = written(bytes([*b"abc", END_OF_TURN, *b"de"]), "adz")
    np.testing.assert_array_equal(samples.lengths, [[3], [12], [12]])
    assert samples.tokens[0, 0, :3].tolist() == [*b"bc", END_OF_TURN]
    np.testing.assert_array_equal(samples.ended, [[True], [False], [False]])


@pytest.mark.parametrize(
    ("strings", "expected"),
    [
        (("de",), ["bcde", "fghijk", "zzzzzzzzzzzz"]),
        (("gh", "e"), ["bcde", "fgh", "zzzzzzzzzzzz"]),
        (("k",), ["bcdefghijk", "fghijk", "zzzzzzzzzzzz"]),
        (("zzz", "absent"), ["bcdefghijk", "fghijk", "zzz"]),
        (("ab", "ed"), ["bcdefghijk", "fghijk", "zzzzzzzzzzzz"]),  # the prompt is not searched
    ],
)
def test_stop_strings_cut_behind_the_token_that_completes_them(written, strings, expected):
    samples = written("abcdefghijk", "aez", stop_strings=strings)
    assert completions(samples) == expected
    whole = written("abcdefghijk", "aez")
    for row in range(3):
        stopped = any(s in expected[row] for s in strings)
        natural = bool(whole.ended[row, 0]) and not stopped
        assert samples.ended[row, 0] == (stopped or natural)
        assert samples.lengths[row, 0] == len(expected[row]) + natural
        assert (samples.tokens[row, 0, samples.lengths[row, 0] :] == 0).all()
        assert (samples.logprobs[row, 0, samples.lengths[row, 0] :] == 0).all()


def test_only_the_end_is_searched_for_stop_strings_again(written, one, monkeypatch):
    monkeypatch.setattr(flight, "PATIENCE", 1)
    monkeypatch.setattr(stopping, "OVERLAP", 0)
    monkeypatch.setattr(
        stopping, "stop_string_length", lambda tokens, strings, _: stop_string_length(tokens, strings, text)
    )
    sampler, searched = sampler_of(one, slots=2), []
    sampler._text = lambda ids: searched.append(len(ids)) or text(ids)
    samples = written("abcdefghijk", "aezba", stop_strings=("gh",), sampler=sampler)
    expected = ["bcdefgh", "fgh", "z" * 12, "cdefgh", "bcdefgh"]
    assert completions(samples) == expected
    assert max(searched) <= 3  # a new token or the first two, and as many old ones as the string has
    assert len(searched) <= len("".join(expected))  # every row has stopped at once


def test_decoding_stops_as_soon_as_every_row_has_and_caches_grow_on_the_way(written, one, monkeypatch):
    monkeypatch.setattr(flight, "PATIENCE", 0)
    monkeypatch.setattr(flight, "REFILL", 1)
    sampler, states = sampler_of(one, completions=(4, 12)), []
    run = partial(written, "abcdefg", sampler=sampler)
    assert completions(run("ae")) == ["bcdefg", "fg"]
    decode = sampler._programs.decode

    def decoded(*arguments, **keywords):
        state = decode(*arguments, **keywords)
        states.append((int(state.steps), state.cache.shape[2]))
        return state

    monkeypatch.setattr(sampler._programs, "decode", decoded)
    assert completions(run("ee")) == ["fg", "fg"]
    assert states == [(2, 4)]
    states.clear()
    assert completions(run("ez")) == ["fg", "z" * 12]
    assert states == [(4, 4), (11, 12)]


@pytest.mark.parametrize(("mesh", "slots"), [("1x1", 3), ("8x1", 16)])
def test_a_prompt_that_a_slot_holds_is_not_prefilled_again(make_layout, monkeypatch, mesh, slots):
    layout, prefilled = make_layout(mesh), []
    sampler = sampler_of(layout, slots=slots, prefill=(layout.num_row_shards,))
    draw = partial(
        sampler.complete, layout.everywhere(np.zeros((256, 256), np.float32)), step=0, stage=1,
        settings=SamplingConfig(max_completion_length=5, temperature=1.0),
    )  # fmt: skip
    with layout.active():
        draw([[9]], ids=[0], num_samples=1)
        prefill = sampler._programs.prefill

        def counted(view, tokens, lengths):
            prefilled.extend(np.asarray(tokens)[:, 0].tolist())
            return prefill(view, tokens, lengths)

        monkeypatch.setattr(sampler._programs, "prefill", counted)
        samples = draw([[i] for i in range(5, 13)], ids=range(8), num_samples=7)
    assert sorted(i for i in prefilled if i) == [*range(5, 13)]
    assert samples.lengths.tolist() == [[5] * 7] * 8
    assert len(np.unique(samples.tokens.reshape(56, -1), axis=0)) == 56


@pytest.mark.usefixtures("following_at_once")
@pytest.mark.parametrize(("mesh", "slots", "room"), [("1x1", 7, 1), ("1x1", 7, 3), ("2x1", 8, 2)])
def test_every_slot_gets_its_own_prompt_whatever_is_copied_and_moved_on_the_way(make_layout, mesh, slots, room):
    """Completions repeat the last token of their prompt for a random time; refinements follow in the end, too."""
    layout, done, moved = make_layout(mesh), {}, []
    table = np.where(np.eye(256, dtype=bool), 0.0, -np.inf).astype(np.float32)
    table[:, END] = -1.0
    sampler = sampler_of(layout, slots=slots, prefill=(room,), tails=(2, 4))
    settings = SamplingConfig(max_completion_length=12, temperature=1.0)

    def follow(finished):
        done.update({request.prompt[-1]: samples for request, samples in finished})
        return [Request(r.index, r.id, 2, [9, r.prompt[-1] + 100], 3) for r, _ in finished if r.stage == 1]

    run = partial(sampler, layout.everywhere(table), settings=settings, follow=follow)
    with layout.active():
        run([Request(0, 0, 1, [9, 10], 1)], step=1)
        move = sampler._programs.move
        sampler._programs.move = lambda state, part, index, now: (
            moved.append((now, index.size)) or move(state, part, index, now)
        )
        for some in (range(40), range(40, 42), range(42, 44), range(44, 47), range(47, 50)):
            run([Request(i, i, 1, [9, 10 + i], 5 if len(some) > 3 else 2) for i in some], step=0)
    assert sorted(done) == [*range(10, 60), *range(110, 160)]
    assert all(set(samples.tokens.ravel().tolist()) <= {0, END, start} for start, samples in done.items())
    assert len(np.unique([samples.lengths[:3] for samples in done.values() if len(samples.lengths) > 2])) > 5
    assert any(then < now for now, then in moved)
    assert any(then > now for now, then in moved)


@pytest.mark.usefixtures("following_at_once")
def test_the_last_prompts_in_flight_are_decoded_in_fewer_slots(written, one, monkeypatch):
    sampler, used = sampler_of(one, slots=8, tails=(2, 4)), []
    starts = "zefeefad"
    assert completions(written("abcdefg", starts, sampler=sampler))[0] == "z" * 12
    decode = sampler._programs.decode

    def decoded(*arguments, state):
        before = int(state.steps)
        after = decode(*arguments, state=state)
        used.append((int(after.steps) - before, len(after.active)))
        return after

    monkeypatch.setattr(sampler._programs, "decode", decoded)
    run, usages = flight.Flight.run, []

    def watched(*arguments):
        usages.append(run(*arguments))
        return usages[-1]

    monkeypatch.setattr(flight.Flight, "run", watched)
    written("abcdefg", starts, sampler=sampler)
    assert [slots for _, slots in used] == sorted((slots for _, slots in used), reverse=True)
    assert {size: sum(steps for steps, slots in used if slots == size) for size in (8, 4, 2)} == {8: 2, 4: 1, 2: 8}
    assert usages[0].row_steps == sum(steps * slots for steps, slots in used)


@pytest.mark.parametrize(("length", "expected"), [(1, ["b", "g"]), (2, ["bc", "g"])])
def test_short_completions(written, length, expected):
    samples = written("abcdefg", "af", length=length)
    assert completions(samples) == expected
    np.testing.assert_array_equal(samples.ended, [[False], [length > 1]])


@pytest.mark.parametrize(
    ("stop_ids", "message"),
    [((), "0 stop ids were given; give 1 to 8"), (range(9), "9 stop ids were given; give 1 to 8")],
)
def test_stop_id_errors(one, stop_ids, message):
    with pytest.raises(ValueError, match=message):
        sampler_of(one, stop_ids=tuple(stop_ids))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("start", "steps", "value"), [(4, 1, np.nan), (3, 2, np.nan), (3, 2, np.inf), (3, 2, -np.inf)])
@pytest.mark.parametrize("stop_strings", [(), ("b",)], ids=str)
def test_logits_that_are_no_numbers_are_an_error_that_says_so(one, temperature, start, steps, value, stop_strings):
    """Of one prompt among others, with its first token or a later one, before any text is made of the tokens."""
    table = np.full((256, 256), -np.inf, np.float32)
    table[np.arange(256), np.arange(256)] = 0.0
    table[3] = np.roll(table[3], 1)  # 3 is followed by 4
    table[4] = value
    settings = SamplingConfig(max_completion_length=12, temperature=temperature, stop_strings=stop_strings)
    message = rf"token {steps} of a completion of prompt 1 \(stage 2\) cannot be drawn: .* NaN or infinite; begin"
    with pytest.raises(ValueError, match=message) as error:
        sampler_of(one).complete(
            one.everywhere(table), [[97], [start], [98]], ids=range(3), step=0, stage=2, num_samples=1,
            settings=settings,
        )  # fmt: skip
    assert "\n" not in str(error.value)


def test_requests_that_cannot_be_served(one):
    table, sampler = one.everywhere(np.zeros((4, 4), np.float32)), sampler_of(one)

    def run(prompts, ids, length=1):
        settings = SamplingConfig(max_completion_length=length)
        sampler.complete(table, prompts, ids=ids, step=0, stage=1, num_samples=1, settings=settings)

    with pytest.raises(ValueError, match="1 ids for 2 prompts"):
        run([[1], [2]], [5])
    with pytest.raises(ValueError, match="prompt 1 has 5 tokens; prompts need 1 to 4"):
        run([[1], [1] * 5], [5, 6])
    with pytest.raises(ValueError, match="up to 13 tokens, but the sampler was made for 12"):
        run([[1]], [5], length=13)


def test_what_is_slow_to_follow_holds_up_nothing_else(one):
    """Prompt 0's follower waits until all other prompts, and what follows from them, are through."""
    others, seen = threading.Event(), []

    def follow(finished):
        assert len(finished) == 1  # what ends together is not graded together
        request, _ = finished[0]
        if request.index == 0 and request.stage == 1 and not others.wait(60):
            raise ValueError("the others wait for prompt 0")
        seen.append((request.index, request.stage))
        if len(seen) == 10:
            others.set()
        return [Request(request.index, request.id, 2, [3, 3], 2)] if request.stage == 1 else []

    requests, settings = [Request(i, i, 1, [3], 2) for i in range(6)], SamplingConfig(max_completion_length=3)
    usage = sampler_of(one, followers=8)(
        one.everywhere(np.zeros((4, 4), np.float32)), requests, step=0, settings=settings, follow=follow
    )
    assert seen[-2:] == [(0, 1), (0, 2)] and sorted(seen) == [(i, stage) for i in range(6) for stage in (1, 2)]
    assert usage.tokens > 0


@pytest.mark.parametrize("followers", [1, 4])
def test_what_follows_raises_is_raised(one, followers):
    def follow(finished):
        raise ValueError("no such answer")

    requests, settings = [Request(0, 0, 1, [3], 1)], SamplingConfig(max_completion_length=1)
    with pytest.raises(ValueError, match="no such answer"):
        sampler_of(one, followers=followers)(
            one.everywhere(np.zeros((4, 4), np.float32)), requests, step=0, settings=settings, follow=follow
        )
