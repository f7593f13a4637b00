"""From text to a tree of mathematics, by a grammar; nothing here runs text as code or works anything out.

A text has at most 1,000 characters and nests at most 20 levels deep, so every text is read in milliseconds.
"""

from igrpo_jax.rewards.reading.grammar import letter_runs, read
from igrpo_jax.rewards.reading.nodes import Node, ReadError, TooLarge

__all__ = ["Node", "ReadError", "TooLarge", "letter_runs", "read"]
