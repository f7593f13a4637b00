"""Where completions end: stop strings, which are found in the text of tokens, and stop ids."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Int

Text = Callable[[Sequence[int]], str]
"""The text of token ids."""

OVERLAP = 4
"""Old tokens decoded again besides as many as a stop string has bytes, for a character may be cut in two."""


def lanes_to_stop(
    tokens: Int[np.ndarray, "S W T"],
    lengths: Int[np.ndarray, "S W"],
    searched: Int[np.ndarray, "S W"],
    active: Bool[np.ndarray, "S W"],
    *,
    strings: Sequence[str],
    text: Text,
) -> Bool[np.ndarray, "S W"]:
    """The active lanes in whose new text a stop string occurs.

    Only the new tokens and a few before them are decoded. A string that begins earlier, because tokens between have no
    text, is not seen here. Then the lane goes on for nothing, and `ends` finds the string.

    Args:
      tokens: what the lanes have drawn.
      lengths: number of tokens that each lane has drawn.
      searched: how many of these were searched before.
      active: the lanes to search.
      strings: the stop strings, at least one.
      text: the text of token ids.
    """
    stop = np.zeros(active.shape, bool)
    again = OVERLAP + max(len(string.encode()) for string in strings)
    for lane in zip(*np.nonzero(active), strict=True):
        found = text(tokens[lane][max(searched[lane] - again, 0) : lengths[lane]].tolist())
        stop[lane] = any(string in found for string in strings)
    return stop


def ends(
    tokens: Int[np.ndarray, "G T"],
    lengths: Int[np.ndarray, " G"],
    *,
    stop_ids: Int[np.ndarray, " stops"],
    strings: Sequence[str],
    text: Text,
) -> tuple[Int[np.ndarray, " G"], Bool[np.ndarray, " G"]]:
    """The length of each completion up to its first stop string, and whether a stop id or a stop string ended it.

    Args:
      tokens: completions.
      lengths: number of tokens drawn of each, at least 1.
      stop_ids: token ids that end a completion.
      strings: stop strings, perhaps none.
      text: the text of token ids.
    """
    lengths = lengths.copy()
    ended = np.isin(np.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0], stop_ids)
    for g in range(len(lengths)) if strings else ():
        stop = stop_string_length(tokens[g][: lengths[g]].tolist(), strings, text)
        if stop is not None:
            lengths[g], ended[g] = stop, True
    return lengths, ended


def stop_string_length(tokens: list[int], strings: Sequence[str], text: Text) -> int | None:
    """Number of leading tokens whose text first holds a stop string; None if it never does.

    Found by bisection: once the first tokens of a completion hold the string, more of them do too.
    """
    found = lambda n: any(string in text(tokens[:n]) for string in strings)
    if not found(len(tokens)):
        return None
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle + 1, high)
    return low
