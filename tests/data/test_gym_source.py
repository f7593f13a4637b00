import json
import random

import numpy as np
import pytest
import reasoning_gym


def test_a_problem_carries_its_entry(load):
    source = load("gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1&size=20&seed=3")
    assert (len(source), source.name, source.endless) == (20, "chain_sum", False)
    for i in range(20):
        problem = source[i]
        entry = json.loads(problem.columns["gym_entry"])
        assert problem.id == i
        assert (entry["question"], entry["answer"]) == (problem.question, problem.columns["answer"])
        assert entry["metadata"]["num_terms"] == 2
        assert problem.columns["gym_task"] == "chain_sum"


@pytest.mark.parametrize(
    "task", ["chain_sum", "countdown", "graph_color", "gsm_symbolic", "letter_jumble", "mini_sudoku", "tower_of_hanoi"]
)
def test_entries_are_still_scored_after_json(load, task):
    source = load(f"gym:{task}?size=5")
    dataset = reasoning_gym.create_dataset(task, size=5, seed=0)
    for i in range(5):
        entry, answer = json.loads(source[i].columns["gym_entry"]), source[i].columns["answer"]
        assert entry == json.loads(json.dumps(dataset[i], default=str))
        assert dataset.score_answer(answer, entry) == dataset.score_answer(answer, dataset[i])
        assert dataset.score_answer("no such answer", entry) < 1


def test_parameters_have_the_types_of_the_task(load):
    source = load("gym:basic_arithmetic?operators=*&format_style=natural&min_terms=2&max_terms=2&size=40")
    assert all("*" in p.question and "+" not in p.question for p in list(source))
    shouted = load("gym:word_sorting?transformation=uppercase&size=3")[0].columns["gym_entry"]
    assert json.loads(shouted)["metadata"]["transformed_words"][0].isupper()


def test_an_endless_source_costs_nothing(load):
    source = load("gym:chain_sum")
    assert len(source) == 1_000_000
    assert source.endless
    assert source[999_999].id == 999_999
    assert not load("gym:chain_sum?limit=64").endless


def test_neighboring_seeds_share_no_problems(load):
    first, second = (load(f"gym:chain_sum?min_terms=6&seed={seed}&size=50") for seed in (0, 1))
    assert not {p.question for p in list(first)} & {p.question for p in list(second)}


@pytest.mark.parametrize("task", ["list_functions", "pool_matrix", "chain_sum"])
def test_entries_do_not_depend_on_what_was_read_before(load, task):
    source, again = load(f"gym:{task}?size=60"), load(f"gym:{task}?size=60")
    forwards = [source[i] for i in range(60)]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert [again[i] for i in reversed(range(60))] == forwards[::-1]
    assert (random.getstate(), str(np.random.get_state())) == before  # noqa: NPY002


def test_tasks_that_follow_the_hash_seed_are_refused_unless_it_is_fixed(load, fails, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    fails("gym:ransom_note", "differ from process to process", "PYTHONHASHSEED=0")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert len(load("gym:ransom_note?size=4")) == 4


def test_tasks_that_cannot_be_endless_have_a_size_that_fits(load, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert len(load("gym:word_ladder")) == 20_000


def test_bad_descriptions(fails):
    fails("gym:chainsum", "unknown reasoning-gym task 'chainsum'", "did you mean 'chain_sum'?")
    fails("gym:composite", "unknown reasoning-gym task 'composite'")
    fails("gym:chain_sum?min_term=3", "unknown option 'min_term'", "did you mean 'min_terms'?")
    fails("gym:chain_sum?min_terms=two", "min_terms='two'", "a whole number")
    fails("gym:chain_sum?min_terms=9", "refuses these parameters", "max_terms must be >= min_terms")
    fails("gym:chain_sum?seed=64", "seed must be 0 to 63")
    fails("gym:chain_sum?size=0", "size 1 to")
    fails("gym:arc_agi?board_format_opts=1", "leave it at its default")
