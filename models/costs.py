"""How much arithmetic a policy does for a token, from its architecture alone."""

from typing import NamedTuple

from models.config import DecoderConfig


class Costs(NamedTuple):
    """Counts from which operations follow.

    Attributes:
      layers: weights of all layers that every token is multiplied with, two operations each.
      head: weights of the unembedding, likewise for tokens that are scored or drawn.
      pair: operations of attention for one query and one key, in all layers.
    """

    layers: int
    head: int
    pair: int


def costs(config: DecoderConfig) -> Costs:
    """The counts of an architecture.

    >>> from models.presets import PRESETS
    >>> costs(PRESETS["tiny"])
    Costs(layers=98304, head=16896, pair=1024)
    """
    heads = config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    return Costs(
        layers=config.layers * config.width * (heads + 3 * config.mlp),
        head=config.vocab_size * config.width,
        pair=4 * config.layers * config.heads * config.head_dim,
    )
