"""Warnings from metrics: each kind by a history that has it and by one just short of it."""

import pytest

from igrpo_jax.records.alarms import Alarms, warnings

USUAL = {
    "grad_norm": 2.0, "sampling/logp_difference/mean": 0.01, "entropy": 1.5, "update/skipped": 0.0,
    "completions/clipped_ratio": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before", "odd", "even", "steps"),
    [
        ("grad_norm", 20, {"grad_norm": 20.1}, {"grad_norm": 20.0}, 1),
        ("logp_difference", 20, {"sampling/logp_difference/mean": 0.11}, {"sampling/logp_difference/mean": 0.1}, 1),
        ("entropy", 0, {"entropy": 0.009}, {"entropy": 0.011}, 1),
        ("skipped", 5, {"update/skipped": 1.0}, {"update/skipped": 0.0}, 20),
        ("endless", 5, {"completions/clipped_ratio": 1.0}, {"completions/clipped_ratio": 0.999}, 20),
    ],
)
def test_each_kind_is_named_and_what_is_just_short_of_it_is_not(name, before, odd, even, steps):
    usual = [USUAL] * before
    assert list(warnings(usual + [USUAL | odd] * steps)) == [name]
    assert warnings([*usual, *[USUAL | odd] * (steps - 1), USUAL | even]) == {}


def test_a_range_is_known_after_twenty_steps_and_gaps_and_nan_do_not_count():
    def history(known):
        return [USUAL] * known + [{}] * 5 + [{"grad_norm": float("nan")}] * 5 + [USUAL | {"grad_norm": 1e6}]

    assert warnings(history(19)) == {} and list(warnings(history(20))) == ["grad_norm"]
    assert warnings([]) == warnings([{}]) == {}


def test_a_warning_is_given_once():
    alarms = Alarms()
    said = [alarms.after(USUAL | {"entropy": 0.0}) for _ in range(3)]
    assert [len(texts) for texts in said] == [1, 0, 0] and said[0][0].startswith("entropy: ")
    assert [len(alarms.after(USUAL | {"grad_norm": 2.0})) for _ in range(20)] == [0] * 20
    assert alarms.after(USUAL | {"grad_norm": 100.0, "entropy": 0.0})[0].startswith(
        "grad_norm: the gradient norm is 100"
    )
