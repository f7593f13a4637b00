"""What runs that are disturbed are compared with."""

import signal

import pytest

from tests.chaos.chaos import Child


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="session")
def alone(place):
    """A run that nobody disturbs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore it
    assert Child(place / "alone", place / "cache").ends().status == 0
    return place / "alone"
