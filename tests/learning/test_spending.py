"""How many steps a run takes that has a limit: by hand, and in real runs of configs/smoke.py."""

import json
import shutil
from dataclasses import replace

import pytest

import launch
from igrpo_jax.config import AlgorithmConfig, Config, TrainConfig
from igrpo_jax.learning.optimizer import learning_rate
from igrpo_jax.learning.spending import Spending, planned


def steps_of(tokens, *, expected=10, records=(), **limits) -> list[int]:
    """How many steps are expected before the first and after each step, up to the end."""
    spending = Spending(Config(train=TrainConfig(steps=expected, **limits)), records)
    done, found = len(records), []
    found.append(spending.steps(done))
    for amount in tokens:
        if found[-1] <= done:
            break
        spending.add({"num_tokens": amount, "train/tokens": amount / 2, "step_time": 1.0})
        done += 1
        found.append(spending.steps(done))
    return found


def test_without_a_limit_there_are_as_many_steps_as_the_config_says():
    assert steps_of([100.0] * 3, expected=3) == [3, 3, 3, 3]


def test_what_is_expected_follows_what_has_been_spent():
    assert steps_of([100.0] * 20, max_sampled_tokens=500) == [10, 5, 5, 5, 5, 5]
    assert steps_of([100.0, 300.0, 100.0, 100.0, 400.0], max_sampled_tokens=1000) == [10, 10, 5, 6, 7, 5]
    assert steps_of([100.0] * 20, max_trained_tokens=150) == [10, 3, 3, 3]
    assert steps_of([100.0] * 20, max_seconds=2.0) == [10, 2, 2]
    assert steps_of([100.0] * 20, max_seconds=9.0, max_sampled_tokens=400) == [10, 4, 4, 4, 4]  # the nearer one


@pytest.mark.parametrize(("limit", "steps"), [(940, 9), (960, 10), (1040, 10), (1060, 11), (20, 1)])
def test_a_run_ends_where_it_is_nearest_to_its_limit(limit, steps):
    assert steps_of([100.0] * 20, max_sampled_tokens=limit)[-1] == steps


def test_a_run_that_trains_on_nothing_ends_too():
    found = steps_of([0.0] * 50, expected=4, max_trained_tokens=100)
    assert len(found) == 41 and set(found[1:]) == {40}


def test_a_resumed_run_remembers_what_was_spent():
    records = [{"step": s + 1, "num_tokens": 100.0, "step_time": 1.0} for s in range(3)]
    evaluation = {"step": 3, "eval/a/avg@2": 0.5}
    assert steps_of([100.0] * 20, records=records, max_sampled_tokens=500) == [5, 5, 5]
    assert Spending(Config(train=TrainConfig(max_sampled_tokens=300)), [*records, evaluation]).steps(3) == 3


def test_what_a_step_takes_is_known_ahead_where_nothing_hangs_on_lengths():
    config = Config(algorithm=AlgorithmConfig(num_drafts=3, num_generations=5, rounds=2, num_iterations=4))
    assert planned(config) == {"problems": 128, "sampled_completions": 128 * 13, "optimizer_steps": 4}
    grpo = replace(config, algorithm=AlgorithmConfig(num_drafts=0, num_generations=8))
    assert planned(grpo)["sampled_completions"] == 128 * 8


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def test_a_real_run_ends_by_its_limit_and_so_does_its_schedule(tmp_path, cache, monkeypatch, capsys, quick_compile):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    limit = 2500  # smoke.py samples some 560 tokens a step
    run = ["--config", "smoke.py", "--mesh", "8x1", "--train.max-sampled-tokens", str(limit), "--train.no-export"]
    run += ["--train.steps", "2", "--optim.warmup-ratio", "0"]
    assert launch.main([*run, "--workdir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out

    def records(name):
        return [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]

    steps = [record for record in records("run") if "num_tokens" in record]
    sampled = [record["num_tokens"] for record in steps]
    assert abs(sum(sampled) - limit) <= max(sampled) / 2 and len(steps) > 2
    assert f"step {len(steps)}/{len(steps)} " in said
    assert [r["step"] for r in records("run") if any(name.startswith("eval/") for name in r)] == [0, len(steps)]
    config = launch.parse(run)[1].optim
    mean = [sum(sampled[:s]) / s for s in range(1, len(steps))]
    expected = [2, *(max(s + 2, round(limit / one)) for s, one in enumerate(mean))]
    rates = [learning_rate(step, total, config) for step, total in enumerate(expected)]
    assert [record["learning_rate"] for record in steps] == pytest.approx(rates)
    assert rates[-1] < 0.35 * config.learning_rate  # near the end of the cosine, at a tenth

    shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / str(len(steps)))
    for _ in range(2):  # from the checkpoint before, and where nothing is left to do
        assert launch.main([*run, "--workdir", str(tmp_path / "again")]) == 0
        same = ("step", "num_tokens", "learning_rate", "reward", "eval/arithmetic_sum/mean_length")
        assert [[r.get(n) for n in same] for r in records("again")] == [
            [r.get(n) for n in same] for r in records("run")
        ]
