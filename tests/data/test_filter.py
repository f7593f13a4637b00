import threading
from dataclasses import dataclass, field

import pytest

from igrpo_jax.data import filter, usable
from igrpo_jax.types import Problem


@dataclass
class Listed:
    """A source that counts its reads."""

    problems: list[Problem]
    name: str = "listed"
    endless: bool = False
    reads: int = field(default=0)

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int) -> Problem:
        self.reads += 1
        return self.problems[index]


def problem(index: int, question: str = "two words", answer: str | None = "1", **columns: str) -> Problem:
    return Problem(index, question, columns | {"answer": answer})


def sift(source, max_prompt_length=3, gold_is_parsable=lambda gold: gold != "??", **options):
    return usable(
        source,
        count_tokens=lambda questions: [len(question.split()) for question in questions],
        max_prompt_length=max_prompt_length,
        gold_is_parsable=gold_is_parsable,
        **options,
    )


MIXED = [
    problem(10),
    problem(11, question=""),
    problem(12, answer=None),
    problem(13, answer="??"),
    problem(14, question="a b c"),
    problem(15, question="a b c d"),
    *(problem(i, question="  ") for i in (16, 17, 18)),
]


def test_only_usable_problems_stay_under_their_ids():
    source, report = sift(Listed(MIXED))
    assert [source[i] for i in range(len(source))] == [MIXED[0], MIXED[4]]
    assert source.name == "listed"
    with pytest.raises(IndexError):
        source[2]
    assert (report.checked, report.kept, report.longest_prompt) == (9, 2, 3)
    assert report.dropped == {"no question": 4, "no answer": 1, "unparsable answer": 1, "question too long": 1}
    assert report.examples["no question"] == (11, 16, 17)


def test_the_report_is_one_line():
    assert str(sift(Listed(MIXED))[1]) == (
        "listed: kept 2 of 9, dropped 4 no question (ids 11, 16, 17, ...), 1 no answer (id 12), "
        "1 unparsable answer (id 13), 1 question too long (id 15); longest prompt 3 tokens"
    )
    assert str(sift(Listed([problem(0)]))[1]) == "listed: kept 1 of 1; longest prompt 2 tokens"


def test_dropped_prompts_do_not_count_as_longest():
    report = sift(Listed([problem(0), problem(1, question="a b c", answer=None)]))[1]
    assert report.longest_prompt == 2


def test_tokens_are_counted_in_large_portions_and_golds_once(monkeypatch):
    monkeypatch.setattr(filter, "_CHUNK", 1024)
    portions, golds = [], []

    def count_tokens(questions):
        portions.append(len(questions))
        return [1] * len(questions)

    def gold_is_parsable(gold):
        golds.append(gold)
        return gold != "3"

    source, _ = usable(
        Listed([problem(i, answer=str(i % 5)) for i in range(2500)]),
        count_tokens=count_tokens,
        max_prompt_length=1,
        gold_is_parsable=gold_is_parsable,
    )
    assert portions == [1024, 1024, 452]
    assert golds == ["0", "1", "2", "3", "4"]
    assert len(source) == 2000


def test_golds_can_be_checked_elsewhere():
    asked = []

    def map_golds(function, golds):
        asked.append(list(golds))
        return [function(gold) for gold in golds]

    source, _ = sift(Listed(MIXED), map_golds=map_golds)
    assert (asked, len(source)) == ([["1", "??"]], 2)


def test_each_process_reads_and_judges_its_part(in_threads):
    sources, parts, met = [Listed(MIXED), Listed(MIXED)], [[], []], threading.Barrier(2, timeout=10)

    def process(index):
        def divide(name, work, items):
            parts[index] = work(items[4 * index : 4 + 5 * index])
            met.wait()
            return parts[0] + parts[1]

        return sift(sources[index], divide=divide)

    whole, report = sift(Listed(MIXED))
    for source, found in in_threads(2, process):
        assert (list(source.indices), found) == (list(whole.indices), report)
    assert [source.reads for source in sources] == [4, 5]


def test_a_problem_of_an_endless_source_is_judged_without_the_other_processes():
    asked = []

    def divide(name, work, items):
        asked.append(len(items))
        return work(items)

    source, _ = sift(
        Listed([problem(i, answer="??" if i % 2 else "1") for i in range(300)], endless=True), divide=divide
    )
    assert (source[1].id, source[299].id, asked) == (2, 0, [256])


def test_problems_with_their_own_scorer_need_no_gold():
    problems = [problem(0, answer=None, gym_entry="{}"), problem(1, answer="??", gym_entry="{}"), problem(2, "")]
    source, report = sift(Listed(problems))
    assert (len(source), report.dropped) == (2, {"no question": 1})


@pytest.mark.parametrize(
    ("bad", "fix"),
    [
        (problem(0, question="a b c d"), "raise prompt.max_prompt_length"),
        (problem(0, answer=None), "check data.answer_column"),
        (problem(0, answer="??"), "check data.answer_column"),
        (problem(0, question=""), "check data.question_column"),
    ],
)
@pytest.mark.parametrize("endless", [False, True])
def test_nothing_left_names_the_fix(bad, fix, endless):
    with pytest.raises(ValueError, match=fix) as caught:
        sift(Listed([bad] * 300, endless=endless))
    assert "\n" not in str(caught.value)


def test_endless_sources_are_probed_and_skip_later():
    everything = [problem(i, answer="??" if i % 3 == 1 else "1") for i in range(20_000)]
    inner = Listed(everything, endless=True)
    source, report = sift(inner, max_prompt_length=50)
    assert inner.reads == 256
    assert (len(source), getattr(source, "endless", None)) == (20_000, True)
    assert [source[i].id for i in (0, 1, 2, 3, 4, 19_999)] == [0, 2, 2, 3, 5, 0]
    assert (report.kept, report.longest_seen, report.longest_prompt) == (171, 2, 50)
    assert str(report).startswith("listed: kept 171 of the first 256 (of 20000, made on demand), dropped 85 unparsable")


def test_an_endless_source_that_dries_up_is_an_error():
    source, _ = sift(Listed([problem(i, answer="1" if i < 256 else None) for i in range(20_000)], endless=True))
    with pytest.raises(ValueError, match="no usable problem among 4096 after 300"):
        source[300]
