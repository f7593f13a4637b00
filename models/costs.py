"""What a policy costs in arithmetic, from its architecture."""

from typing import NamedTuple

from models.config import DecoderConfig


class Costs(NamedTuple):
    """Attributes:
    layers: weights that every token is multiplied with, two operations each.
    head: weights of the unembedding, for tokens that are scored or drawn.
    pair: operations of attention for one query and one key, in all layers.
    """

    layers: int
    head: int
    pair: int


def costs(config: DecoderConfig) -> Costs:
    """Costs of an architecture.

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
