import json

import pytest

from igrpo_jax.data import Source
from igrpo_jax.types import Problem


@pytest.fixture
def write(tmp_path):
    """`write(*rows)`: a JSONL file of these rows."""

    def make(*rows: dict) -> str:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"file:{path}"

    return make


def test_columns_pass_through_and_the_answer_is_named_answer(load, write):
    spec = write({"problem": " 1 + 1? ", "final": 2, "level": 5}, {"problem": "2 + 2?", "final": None, "level": 1})
    source = load(spec, question_column="problem", answer_column="final")
    assert isinstance(source, Source)
    assert [source[0], source[1]] == [
        Problem(0, "1 + 1?", {"problem": " 1 + 1? ", "final": 2, "level": 5, "answer": "2"}),
        Problem(1, "2 + 2?", {"problem": "2 + 2?", "final": None, "level": 1, "answer": None}),
    ]
    assert load(f"{spec}?question=problem&answer=level")[0].columns["answer"] == "5"
    with pytest.raises(IndexError):
        source[2]


def test_nested_columns(load, write):
    spec = write({"prompt": [{"role": "user", "content": "1 + 1?"}], "extra_info": {"answer": "2"}, "a.b": "7"})
    problem = load(f"{spec}?question=prompt.0.content&answer=extra_info.answer")[0]
    assert (problem.question, problem.columns["answer"]) == ("1 + 1?", "2")
    assert load(f"{spec}?question=prompt.0.content&answer=a.b")[0].columns["answer"] == "7"


@pytest.mark.parametrize(
    ("raw", "gold"),
    [
        ("48 / 2 = 24\n#### 24", "24"),
        ("#### 1\n#### -1,234,567.5", "-1234567.5"),
        ("#### (1,234)", "(1,234)"),
        ("no marker 5", None),
        ("####  ", None),
        (None, None),
    ],
)
def test_answer_after_a_marker(load, write, raw, gold):
    spec = write({"question": "q", "answer": raw})
    assert load(f"{spec}?answer_after=####")[0].columns["answer"] == gold


@pytest.mark.parametrize(
    ("raw", "gold"),
    [(r"So \boxed{1}, no: $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"), ("It is 7.", None), (r"\boxed{ }", None)],
)
def test_answer_in_a_box(load, write, raw, gold):
    spec = write({"question": "q", "answer": raw})
    assert load(f"{spec}?answer_boxed=1")[0].columns["answer"] == gold


@pytest.mark.parametrize(("raw", "gold"), [(2, "2"), (2.5, "2.5"), (float("nan"), None), ("  ", None), (" x ", "x")])
def test_answer_as_text(load, write, raw, gold):
    assert load(write({"question": "q", "answer": raw}))[0].columns["answer"] == gold


def test_columns_that_rewards_take_are_renamed(load, write):
    columns = load(write({"question": "q", "answer": "1", "prompts": "a", "ended": 0, "completion_ids": [1]}))[
        0
    ].columns
    assert columns == {"question": "q", "answer": "1", "prompts_": "a", "ended_": 0, "completion_ids_": [1]}


def test_window_and_order_keep_the_row_as_id(load, write):
    spec = write(*({"question": f"q{i}", "answer": i} for i in range(10)))

    def ids(options):
        return [problem.id for problem in list(load(spec + options))]

    assert ids("?offset=7") == [7, 8, 9]
    assert ids("?offset=2&limit=3") == [2, 3, 4]
    assert ids("?limit=99") == list(range(10))
    shuffled = ids("?shuffle_seed=1")
    assert sorted(shuffled) == list(range(10)) != shuffled
    assert ids("?shuffle_seed=1&offset=2&limit=3") == shuffled[2:5]
    assert ids("?shuffle_seed=2") != shuffled
    assert all(problem.question == f"q{problem.id}" for problem in list(load(f"{spec}?shuffle_seed=1")))


def test_names(load, write):
    assert load("arithmetic:mix").name == "arithmetic_mix"
    assert load(write({"question": "q", "answer": 1})).name == "data"
    assert load("arithmetic:mix?split=test&label=held_out").name == "held_out"


def test_generated_sources_know_their_columns(load):
    assert load("arithmetic:mix", question_column="problem", answer_column="final")[0].question == "What is 4 * 3?"


def test_unknown_kind_and_options(fails, write):
    spec = write({"question": "q", "answer": 1})
    fails("arithmtic:mix", "unknown kind 'arithmtic'", "did you mean 'arithmetic'?")
    fails("nothing", "kind:name?option=value")
    fails(f"{spec}?limt=3", "unknown option 'limt'", "did you mean 'limit'?")
    fails(f"{spec}?zzz=1", "unknown option 'zzz'", "known: answer, ")
    fails(f"{spec}?limit=x", "limit='x'", "a whole number")
    fails(f"{spec}?limit=0", "limit at least 1")
    fails(f"{spec}?offset=1", "offset=1 leaves nothing of 1 rows")


def test_columns_that_are_not_there(fails, write):
    spec = write({"question": "q", "solution": {"text": "1"}, "turns": ["a"]})
    fails(spec, "no column 'answer' for the answer", "present: question, solution, turns", "data.answer_column")
    fails(f"{spec}?question=prompt&answer=question", "no column 'prompt'", "data.question_column")
    fails(f"{spec}?answer=solution.final", "no column 'solution.final'", "present: text")
    fails(f"{spec}?answer=turns.1", "no column 'turns.1'", "present: 0")


def test_a_column_that_is_not_text(fails, write):
    spec = write({"question": ["a", "b"], "answer": 1})
    fails(spec, "row 0: column 'question' holds a list", "question.0")
