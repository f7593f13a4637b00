"""Damage of every kind of file: benchmarks/corruption.py on a few, and what it must tell apart."""

import random
from collections import Counter

import pytest

from benchmarks import corruption
from benchmarks.harms import HARMS


def test_random_damage_is_named_or_harmless():
    said = []
    table = corruption.run(66, seed=7, say=said.append)
    total = sum(table.values(), Counter())
    assert not said and total["traceback"] == total["hang"] == total["silent"] == 0
    assert sum(total.values()) == 66 and all(sum(counts.values()) == 6 for counts in table.values())
    assert total["named"] >= 20 and total["same"] >= 5


def test_what_must_not_happen_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(corruption, "LIMIT", 1)
    kind = lambda read: corruption.Kind(None, read, summed=True)

    def broken(folder):
        raise KeyError("name")

    def endless(folder):
        while True:
            pass

    def lines(folder):
        raise ValueError("one\ntwo")

    assert [corruption.judge(kind(read), tmp_path, 3)[0] for read in (broken, endless, lines)] == [
        "traceback", "hang", "traceback"
    ]  # fmt: skip
    assert [corruption.judge(kind(lambda _, value=value: value), tmp_path, 3)[0] for value in (3, 4)] == [
        "same", "silent"
    ]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_every_harm_changes_a_file(harm):
    dice = random.Random(0)
    data = bytearray(range(256))
    harm(data, dice)
    assert data != bytes(range(256))
