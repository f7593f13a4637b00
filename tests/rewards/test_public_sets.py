"""The gold answers of public sets: each is itself, none its neighbour, and none the same with another digit."""

import itertools
import json
import random
import re
from pathlib import Path

import pytest

from igrpo_jax.rewards import compare, extract_answer, gold_is_parsable
from igrpo_jax.rewards.extract import last_box

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = ("gsm8k_test", "math500", "aime24", "aime25", "amc23", "minerva_math")
SAME_NEIGHBORS = {("5", "x=5")}
"""Neighbors that are the same answer."""

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the public sets in ../shared/data")


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def golds(name: str) -> list[str]:
    """What the gold column says, without the worked solution."""
    texts = []
    for row in rows(name):
        box = None if "answer" in row else last_box(row["solution"])
        text = str(row["answer"]) if box is None else box[1]
        texts.append(text.rpartition("####")[2].strip())
    return texts


@pytest.mark.parametrize("name", SETS)
def test_every_gold_is_read_and_is_itself(name):
    texts = golds(name)
    assert len(texts) >= 30
    assert [gold for gold in texts if not gold_is_parsable(gold)] == []
    assert [gold for gold in texts if compare(rf"\left. {gold} \right.", gold) != 1] == []


@pytest.mark.parametrize("name", SETS)
def test_no_gold_is_its_neighbor(name):
    texts = golds(name)
    pairs = [(a, b) for a, b in itertools.pairwise(texts) if a != b and compare(a, b)]
    assert set(pairs) <= SAME_NEIGHBORS


@pytest.mark.parametrize("name", SETS)
def test_another_digit_is_another_answer(name):
    """Three of the digits of each gold, each changed: 99.9 % must be refused, and all are."""
    draw = random.Random(0)
    changed = []
    for gold in golds(name):
        places = [match.start() for match in re.finditer("[0-9]", gold)]
        for place in draw.sample(places, min(3, len(places))):
            digit = (int(gold[place]) + draw.randrange(1, 10)) % 10
            changed.append((gold[:place] + str(digit) + gold[place + 1 :], gold))
    assert [pair for pair in changed if compare(*pair)] == []


def test_swapped_entries_of_matrices_are_refused():
    swapped = []
    for gold in golds("math500"):
        body = re.fullmatch(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", gold)
        parts = re.split(r"(&|\\\\)", body[1]) if body else []
        for i in range(0, len(parts), 2):
            for j in range(0, i, 2):
                if parts[i].strip() != parts[j].strip():
                    other = list(parts)
                    other[i], other[j] = parts[j], parts[i]
                    swapped.append((rf"\begin{{pmatrix}}{''.join(other)}\end{{pmatrix}}", gold))
    assert len(swapped) == 20
    assert [pair for pair in swapped if compare(*pair)] == []


def test_labelled_completions_get_their_publishers_verdict():
    labelled = rows("gsm8k_labelled_completions")
    answers = [extract_answer(row["completion"]) for row in labelled]
    verdicts = [
        answer is not None and bool(compare(answer, str(row["answer"])))
        for answer, row in zip(answers, labelled, strict=True)
    ]
    assert len(verdicts) == 5276
    assert verdicts == [bool(row["is_correct"]) for row in labelled]
