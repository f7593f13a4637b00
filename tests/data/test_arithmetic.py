import re

import pytest


def operands(source):
    """What is asked, as (a, sign, b), of every row."""
    questions = [source[i].question for i in range(len(source))]
    found = [re.findall(r"^What is (\d+) ([*+]) (\d+)\?$", question) for question in questions]
    return [(int(a), sign, int(b)) for ((a, sign, b),) in found]


@pytest.mark.parametrize("ranges", ["", "&max_sum_operand=30&max_product_operand=12"])
def test_no_pair_of_operands_is_in_both_parts(load, ranges):
    train, test = (
        {frozenset((a, b)) for a, _, b in operands(load(f"arithmetic:mix?split={split}{ranges}"))}
        for split in ("train", "test")
    )
    assert not train & test
    assert len(train) > 2 * len(test) > 40


def test_parts_of_other_ranges_are_disjoint_too(load):
    train = {frozenset((a, b)) for a, _, b in operands(load("arithmetic:sum?split=train&max_sum_operand=40"))}
    test = {frozenset((a, b)) for a, _, b in operands(load("arithmetic:product?split=test"))}
    assert test
    assert not train & test


def test_both_parts_are_the_whole(load):
    product = [operands(load(f"arithmetic:product?split={split}")) for split in ("train", "test", "all")]
    assert [len(rows) for rows in product] == [48, 16, 64]
    assert sorted(product[0] + product[1]) == sorted(product[2])
    assert sorted(product[2]) == [(a, "*", b) for a in range(2, 10) for b in range(2, 10)]
    sums = operands(load("arithmetic:sum?split=all"))
    assert sorted(sums) == [(a, "+", b) for a in range(1, 16) for b in range(1, 16)]


def test_answers_are_right(load):
    source = load("arithmetic:mix?split=all")
    for i, (a, sign, b) in enumerate(operands(source)):
        assert source[i].columns["answer"] == str(a * b if sign == "*" else a + b)


def test_mix_alternates_and_its_rows_are_always_the_same(load):
    rows = operands(load("arithmetic:mix"))
    assert [sign for _, sign, _ in rows] == ["*", "+"] * (len(rows) // 2)
    assert len(set(rows)) == 48 + 162
    assert rows[:4] == [(4, "*", 3), (9, "+", 2), (6, "*", 5), (4, "+", 1)]


def test_bad_descriptions(fails):
    fails("arithmetic:mox", "unknown operation 'mox'", "did you mean 'mix'?")
    fails("arithmetic:mix?split=dev", "one of train, test, all")
    fails("arithmetic:mix?max_sum=9", "unknown option 'max_sum'", "'max_sum_operand'")
    fails("arithmetic:mix?min_sum_operand=16", "widen them")
