"""Whether a train state is finite: every number of it counts, and looking takes no memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.learning.optimizer import TrainState, is_finite

STATE = TrainState(
    {"a": jnp.full((64, 48, 33), -3.0), "b": jnp.ones(5)}, (jnp.int32(7), {"a": jnp.full((640, 48), 2e38)})
)


def test_looking_takes_no_memory():
    memory = jax.jit(is_finite).lower(STATE).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.01 * memory.argument_size_in_bytes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_number_counts(value):
    look, (leaves, tree) = jax.jit(is_finite), jax.tree.flatten(STATE)
    assert look(STATE)
    for number, leaf in enumerate(leaves):
        for place in [0, leaf.size // 2, leaf.size - 1] if leaf.dtype == jnp.float32 else []:
            broken = leaf.at[np.unravel_index(place, leaf.shape)].set(value)
            assert not look(tree.unflatten([*leaves[:number], broken, *leaves[number + 1 :]]))
