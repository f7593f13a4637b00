"""How every test here opens a source."""

import functools
import re

import pytest

from igrpo_jax.data import load_source


@pytest.fixture
def load():
    """`load(spec)`, with columns named question and answer unless given."""
    return functools.partial(load_source, question_column="question", answer_column="answer")


@pytest.fixture
def fails(load):
    """`fails(spec, *parts)`: loading is a one-line ValueError that contains the parts."""

    def check(spec: str, *parts: str, **columns: str):
        with pytest.raises(ValueError, match=re.escape(spec)) as caught:
            load(spec, **columns)
        message = str(caught.value)
        assert "\n" not in message
        for part in parts:
            assert part in message

    return check
