"""What is read out of checkpoints, and what reading leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.learning.learner import TrainState
from igrpo_jax.records.checkpoint import Checkpoints

STATE = TrainState({"a": jnp.arange(4.0), "b": jnp.ones((2, 3))}, ({"mu": jnp.full(4, 0.5)}, None))


def placed(state):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 2 and 4, and one that is being written."""
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    for step in (2, 4):
        checkpoints.save(step, jax.tree.map(lambda x, step=step: x + step, STATE))
    checkpoints.close()
    (tmp_path / "run" / "6.orbax-checkpoint-tmp").mkdir()
    return tmp_path / "run"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_whole_state_or_the_parameters_alone_come_back(folder):
    checkpoints = Checkpoints(folder, keep=None)
    assert checkpoints.latest() == 4
    state = checkpoints.restore(2, placed(STATE))
    assert jax.tree.structure(state) == jax.tree.structure(STATE)
    for mine, other in zip(jax.tree.leaves(state), jax.tree.leaves(STATE), strict=True):
        np.testing.assert_array_equal(mine, other + 2)
    params = checkpoints.restore_params(4, placed(STATE))
    np.testing.assert_array_equal(params["a"], STATE.params["a"] + 4)
    checkpoints.close()


def test_a_resumed_run_saves_on(folder):
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.save(5, checkpoints.restore(4, placed(STATE)))
    checkpoints.close()
    assert {"4", "5"} <= {*names(folder)} and "2" not in names(folder)


def test_reading_removes_nothing_and_creates_nothing(folder, tmp_path):
    before = names(folder)
    Checkpoints(folder, keep=None).close()
    assert names(folder) == before == ["2", "4", "6.orbax-checkpoint-tmp"]
    nothing = Checkpoints(tmp_path / "none", keep=None)
    assert nothing.latest() is None and not (tmp_path / "none").exists()
    nothing.close()


@pytest.mark.parametrize("part", ["restore", "restore_params"])
@pytest.mark.parametrize("params", [{"a": jnp.zeros(4)}, STATE.params | {"c": jnp.zeros(4)}])
def test_another_policy_is_refused(params, part, folder):
    checkpoints = Checkpoints(folder, keep=None)
    with pytest.raises(ValueError, match=r"checkpoint 4 in .* does not hold this policy"):
        getattr(checkpoints, part)(4, placed(STATE._replace(params=params)))
    checkpoints.close()
