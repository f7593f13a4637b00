"""Two pools of two graders for all tests of rewards: starting processes is what takes time here."""

import pytest

from igrpo_jax.rewards import GraderPool
from igrpo_jax.rewards.compare import warm_up


@pytest.fixture(scope="session")
def bare_pool():
    """Its processes have imported little, so they are quickly replaced."""
    with GraderPool(workers=2, deadline=2.0, memory_mb=256) as pool:
        yield pool


@pytest.fixture(scope="session")
def pool():
    with GraderPool(workers=2, deadline=2.0, memory_mb=256) as pool:
        pool.prepare(warm_up)
        yield pool
