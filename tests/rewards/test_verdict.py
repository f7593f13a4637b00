"""A verdict is a float that survives the way between processes."""

import pickle

import pytest

from igrpo_jax.rewards import Verdict


def test_is_a_float_with_a_reason():
    verdict = Verdict(1.0, "number", "1/2")
    assert verdict == 1.0 and isinstance(verdict, float) and verdict * 2 == 2.0
    assert (verdict.reason, verdict.parsed, verdict.message) == ("number", "1/2", "")


def test_pickles_whole():
    verdict = pickle.loads(pickle.dumps(Verdict(0.25, "error", "x", "KeyError: 'y'")))
    assert type(verdict) is Verdict and float(verdict) == 0.25
    assert (verdict.reason, verdict.parsed, verdict.message) == ("error", "x", "KeyError: 'y'")


def test_vocabulary_is_closed():
    with pytest.raises(ValueError, match="unknown reason 'because'"):
        Verdict(1.0, "because")
