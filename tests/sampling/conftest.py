"""What tests of the sampler share."""

import pytest


@pytest.fixture(scope="module")
def one(make_layout):
    return make_layout("1x1")
