"""Every rule of docs/grading.md has an example there, and the grader keeps to it."""

import re
from pathlib import Path

import pytest

from igrpo_jax.rewards import compare, extract_answer

_PAGE = (Path(__file__).parents[2] / "docs" / "grading.md").read_text(encoding="utf-8")
_CELL = re.compile(r"(?<!\\)\|")


def rows(columns: int) -> list[tuple[str, ...]]:
    """Cells of the tables with so many columns, without the rule's own cell and code marks."""
    found = []
    for line in _PAGE.splitlines():
        cells = [cell.strip() for cell in _CELL.split(line)[1:-1]]
        if len(cells) == columns and cells[0] not in ("rule", "---"):
            found.append(tuple(cell.strip("`") for cell in cells[1:]))
    return found


READ, COMPARED, TRIED = rows(3), rows(4), rows(5)


def test_every_line_of_a_table_is_a_rule_of_one_kind():
    """So that none is left out, by a `|` too many or too few."""
    lines = [line for line in _PAGE.splitlines() if line.lstrip().startswith("|")]
    assert [line for line in lines if not line.endswith("|") or len(_CELL.split(line)[1:-1]) not in (3, 4, 5)] == []
    heads = sum(_CELL.split(line)[1].strip() in ("rule", "---") for line in lines)
    assert len(lines) - heads == len(READ) + len(COMPARED) + len(TRIED)


def test_the_page_has_rules():
    assert len(READ) >= 15 and len(COMPARED) >= 75 and len(TRIED) >= 15
    assert {paid for *_, paid in COMPARED} == {"0", "1"}


@pytest.mark.parametrize(("completion", "answer"), READ)
def test_what_counts_as_the_answer(completion, answer):
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(("gold", "answer", "paid"), COMPARED)
def test_what_is_the_same(gold, answer, paid):
    verdict = compare(answer, gold)
    assert float(verdict) == float(paid), verdict.message
    assert verdict.reason not in ("error", "bad_gold", "timeout")


@pytest.mark.parametrize(("gold", "completion", "answer", "paid"), TRIED)
def test_guessing_is_not_paid(gold, completion, answer, paid):
    found = extract_answer(completion)
    assert (found or "") == answer
    assert float(0 if found is None else compare(found, gold)) == float(paid)
