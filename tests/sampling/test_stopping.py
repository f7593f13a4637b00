"""Where completions end."""

import numpy as np

from igrpo_jax.sampling.stopping import OVERLAP, ends, lanes_to_stop, stop_string_length


def text(ids):
    """Tokens are bytes."""
    return bytes(ids).decode("utf-8", "replace")


def test_stop_strings_are_found_across_tokens_and_characters_of_many_bytes():
    tokens = list("ab→cd→".encode())
    assert stop_string_length(tokens, ("→",), text) == 5
    assert stop_string_length(tokens, ("→c", "d→"), text) == 6
    assert stop_string_length(tokens, ("x",), text) is None
    assert stop_string_length(tokens, ("a",), text) == 1


def test_only_active_lanes_stop_and_only_for_what_is_new():
    tokens = np.array([[list(b"xabcdefgh"), list(b"abxcdefgh")]])
    active, lengths = np.array([[True, True]]), np.array([[9, 9]])
    found = lambda searched, **changes: lanes_to_stop(
        *(tokens, changes.get("lengths", lengths), np.array(searched), changes.get("active", active)),
        strings=("xa", "xc"), text=text,
    ).tolist()  # fmt: skip
    assert found([[0, 0]]) == [[True, True]]
    assert found([[0, 0]], lengths=np.array([[1, 4]])) == [[False, True]]
    assert found([[0, 0]], active=np.array([[False, True]])) == [[False, True]]
    again = OVERLAP + 2
    assert found([[again, again]]) == [[True, True]]
    assert found([[again + 1, again + 1]]) == [[False, True]]
    assert found([[again + 3, again + 3]]) == [[False, False]]


def test_a_completion_ends_with_a_stop_id_or_behind_its_first_stop_string():
    tokens = np.array([list(b"abab."), list(b"ccc.."), list(b"cabc."), list(b"ccccc")])
    lengths = np.array([5, 4, 4, 5])
    end = lambda strings: [
        x.tolist() for x in ends(tokens, lengths, stop_ids=np.array([ord("."), -1]), strings=strings, text=text)
    ]
    assert end(()) == [[5, 4, 4, 5], [True, True, False, False]]
    assert end(("ab", "cab")) == [[2, 4, 3, 5], [True, True, True, False]]
    assert lengths.tolist() == [5, 4, 4, 5]
