"""Whether two trees of mathematics are the same answer, by their values.

The size of every power, factorial and series is looked at before it is worked out, and all work is counted, so no pair
of trees takes longer than a fraction of a second.
"""

from igrpo_jax.rewards.equality.equal import equal
from igrpo_jax.rewards.equality.identity import has_value

__all__ = ["equal", "has_value"]
