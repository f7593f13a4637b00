"""The command line: configs, overrides, and one line for every kind of bad input."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import launch
from igrpo_jax.config import Config, EvalConfig, SamplingConfig, TrainConfig, to_dict
from igrpo_jax.edges.checks import check
from igrpo_jax.records.machine.allocator import ALLOCATOR
from igrpo_jax.sampling.pools import evaluation_pool, pool_of
from igrpo_jax.types import Shapes
from jobs.export import write_export

CONFIGS = sorted(p.name for p in (Path(launch.__file__).parent / "configs").glob("*.py") if p.stem != "__init__")


@pytest.fixture(autouse=True)
def short_errors(monkeypatch, tmp_path):
    monkeypatch.delenv("IGRPO_TRACEBACK", raising=False)
    monkeypatch.setenv("IGRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def fails(capsys, tmp_path, *arguments) -> str:
    """The one line on stderr of a launch that must fail."""
    assert launch.main(["--config", "smoke.py", "--mesh", "8x1", "--workdir", str(tmp_path / "run"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    return error


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_config_is_valid_and_says_how_to_run_it(name):
    config = launch.load_config(name)
    check(config)
    source = (Path(launch.__file__).parent / "configs" / name).read_text()
    assert f"python launch.py --config {name}" in source
    assert json.loads(json.dumps(to_dict(config)))


def test_overrides_are_typed_and_reach_the_config():
    arguments = ["--config", "aime", "--optim.learning-rate", "3e-6", "--data.train", "file:a.jsonl", "file:b.jsonl"]
    start, config = launch.parse([*arguments, "--mesh", "8x1"])
    assert (start.mesh, start.job, config.optim.learning_rate) == ("8x1", "train", 3e-6)
    assert config.data.train == ("file:a.jsonl", "file:b.jsonl")
    assert config.train.problems_per_step == launch.load_config("aime.py").train.problems_per_step


def test_values_of_the_chat_template_are_typed():
    arguments = ["--prompt.chat-template-kwargs", "enable_thinking", "False", "date_string", "1 May 2025", "depth", "3"]
    _, config = launch.parse(["--config", "smoke.py", *arguments])
    assert config.prompt.chat_template_kwargs == {"enable_thinking": False, "date_string": "1 May 2025", "depth": 3}


def test_no_stop_strings_are_given_by_nothing(capsys, tmp_path):
    assert "stop_strings holds an empty text" in fails(capsys, tmp_path, "--sampling.stop-strings", "END", "")
    assert launch.parse(["--config", "smoke.py", "--sampling.stop-strings"])[1].sampling.stop_strings == ()


def test_help_explains_fields(capsys):
    with pytest.raises(SystemExit) as stop:
        launch.parse(["--config", "smoke.py", "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    assert (
        "--mesh" in text and "fsdp x tensor" in text and "--algorithm.num-drafts" in text and "drafts a problem" in text
    )


@pytest.mark.parametrize(
    ("argument", "value", "nearest"),
    [
        ("--optim.learning-rte", "1", "--optim.learning-rate"),
        ("--train.steps", "many", "--train.steps"),
        ("--algorithm.scale-rewards", "True", "('group', 'batch', 'none')"),
    ],
)
def test_a_wrong_name_or_type_names_the_nearest_field(argument, value, nearest, capsys):
    with pytest.raises(SystemExit) as stop:
        launch.main(["--config", "smoke.py", argument, value])
    assert stop.value.code == 2
    assert nearest in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("--algorithm.num-generations", "1", "num_generations is 1; it must be at least 2"),
        ("--sampling.top-p", "0", "sampling.top_p is 0.0; it must be above 0 and at most 1"),
        (
            "--prompt.chat-template-kwargs",
            "tokenize True depth 3",
            "prompt.chat_template_kwargs has tokenize, which is given already",
        ),
        ("--prompt.date", "1.May", "prompt.date is '1.May'; it must be a day, like 2025-01-31"),
        ("--train.micro-batch", "0", "train.micro_batch is 0; it must be at least 1"),
        ("--algorithm.epsilon", "1.5", "algorithm.epsilon is 1.5; it must be above 0 and at most 1"),
        ("--data.mixture", "1 2 3", "data.mixture has 3 numbers for 1 training sources; give one each"),
        ("--prompt.refine", "{question}", "prompt.refine has no {draft}"),
        ("--optim.learning-rate", "nan", "optim.learning_rate is nan"),
        ("--optim.max-grad-norm", "0", "max_grad_norm is 0.0; it must be above 0 (0 would freeze training; for no"),
        ("--optim.warmup-ratio", "1.5", "optim.warmup_ratio is 1.5; it must be at least 0 and at most 1"),
        ("--optim.final-lr-ratio", "-0.1", "optim.final_lr_ratio is -0.1; it must be at least 0 and at most 1"),
        ("--optim.beta1", "1", "optim.beta1 is 1.0; it must be at least 0 and below 1"),
        ("--optim.beta2", "nan", "optim.beta2 is nan; it must be at least 0 and below 1"),
        ("--optim.adam-epsilon", "0", "optim.adam_epsilon is 0.0; it must be above 0"),
        ("--optim.weight-decay", "-1", "optim.weight_decay is -1.0; it must be at least 0"),
        ("--sampling.temperature", "0", "sampling.temperature is 0.0; it must be above 0 (equal completions teach"),
        ("--algorithm.epsilon-high", "-0.2", "algorithm.epsilon_high is -0.2; it must be above 0"),
        (
            "--algorithm.num-drafts",
            "1 --algorithm.draft-weight 1",
            "num_drafts is 1; with a draft_weight it must be at",
        ),
        (
            "--algorithm.beta",
            "0.1 --algorithm.kl-estimator k1",
            "algorithm.kl_estimator is k1 with kl_in loss, whose gradient does not know the reference; take k2",
        ),
        (
            "--algorithm.overlong-buffer",
            "13",
            "overlong_buffer is 13 of sampling.max_completion_length 12 tokens; it must be at most that",
        ),
        ("--algorithm.overlong-buffer", "-1", "algorithm.overlong_buffer is -1; it must be at least 0"),
        (
            "--algorithm.num-drafts",
            "0 --algorithm.skip-solved",
            "skip_solved is True with num_drafts 0; without drafts",
        ),
        (
            "--algorithm.extra-problems",
            "0.01 --algorithm.dynamic-sampling",
            "dynamic_sampling is True with extra_problems 0.01, which allows no further problem",
        ),
        (
            "--algorithm.select",
            "wrong_first --algorithm.num-drafts 0",
            "algorithm.select is wrong_first with num_drafts 0",
        ),
        (
            "--reward.functions",
            "judge --judge.model m --algorithm.skip-solved",
            "skip_solved asks which drafts are right",
        ),
        ("--algorithm.replay", "1.5", "algorithm.replay is 1.5; it must be at least 0 and at most 1"),
        ("--algorithm.replay", "0.5 --algorithm.select worst", "algorithm.replay is 0.5 with select worst; what is"),
        ("--algorithm.replay", "0.5 --algorithm.num-drafts 0", "algorithm.replay is 0.5 with num_drafts 0; what is"),
        ("--algorithm.extra-problems", "-1", "extra_problems is -1.0; it must be at least 0"),
        ("--reward.weights", "0 0", "reward.weights are (0.0, 0.0); they must be finite and not all 0"),
        ("--reward.weights", "1 nan", "reward.weights are (1.0, nan); they must be finite and not all 0"),
        ("--reward.deadline", "nan", "reward.deadline is nan; it must be above 0"),
        ("--reward.memory-mb", "0", "reward.memory_mb is 0; it must be at least 1"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(name, value, phrase, capsys, tmp_path):
    assert phrase in fails(capsys, tmp_path, name, *value.split())
    assert not (tmp_path / "run").exists()


def test_unknown_config_names_the_nearest(capsys):
    assert launch.main(["--config", "quickstrat.py"]) == 2
    assert "did you mean quickstart.py?" in capsys.readouterr().err


def test_a_config_without_get_config_is_named(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("x = 1\n")
    assert launch.main(["--config", str(tmp_path / "mine.py")]) == 2
    assert "define `def get_config() -> Config`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mesh", "phrase"),
    [("eight", "write fsdp x tensor like 8x1"), ("3x1", "--mesh 3x1 needs 3 devices and there are 8")],
)
def test_a_mesh_that_is_none_or_does_not_match(mesh, phrase, capsys, tmp_path):
    assert phrase in fails(capsys, tmp_path, "--mesh", mesh)


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["--model.source", "random:tiyn"], "did you mean random:tiny"),
        (["--model.source", "hf:nobody/nothing"], "hf:nobody/nothing"),
        (["--model.source", "no/such/directory"], "no/such/directory"),
        (["--data.train", "arithmatic:sum"], "arithmetic"),
        (["--data.train", "file:missing.jsonl"], "missing.jsonl"),
        (["--data.train", "hf:nobody/nothing"], "nobody/nothing"),
        (["--prompt.max-prompt-length", "3"], "raise prompt.max_prompt_length"),
        (["--reward.functions", "acuracy"], "did you mean 'accuracy'"),
        (["--reward.functions", "configs.smoke:nothing"], "configs.smoke has no 'nothing'"),
    ],
)
def test_unknown_things_are_named_with_a_fix(arguments, phrase, capsys, tmp_path):
    assert phrase in fails(capsys, tmp_path, *arguments)


def test_a_missing_column_lists_what_there_is(capsys, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    error = fails(capsys, tmp_path, "--data.train", f"file:{tmp_path}/rows.jsonl")
    assert "'question'" in error and "problem" in error


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        ("1 / 0", "raised ZeroDivisionError"),
        ("return [1.0]", "returned 1 values"),
        ("return [float('nan')] * len(completions)", "returned nan"),
    ],
)
def test_a_reward_that_misbehaves_is_named(body, phrase, capsys, tmp_path, monkeypatch, quick_compile):
    name = f"rewards_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def mine(prompts, completions, **columns):\n    {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    error = fails(capsys, tmp_path, "--reward.functions", f"{name}:mine", "--reward.weights", "1")
    assert "'mine'" in error and phrase in error


def test_evaluation_has_a_pool_of_its_own_only_where_it_must_and_no_larger_one():
    made = Config(train=TrainConfig(problems_per_step=6), sampling=SamplingConfig(max_completion_length=32))
    shapes = Shapes(prompt=8, refinement=64, completion=32)
    pool = pool_of(made, 2, shapes)
    assert (pool.slots, pool.lanes, pool.tokens) == (6, 4, 6 * (64 + 4 * 32))

    def other(**fields):
        return evaluation_pool(pool, replace(made, eval=EvalConfig(**fields)), 2, shapes, 100)

    assert other(num_samples=8) == other(num_samples=4, max_completion_length=16) == pool
    longer = other(num_samples=8, max_completion_length=128)
    assert (longer.slots, longer.lanes, longer.prompts, longer.completions[-1]) == (8, 1, (8,), 128)
    uneven = other(num_samples=3, refine=True)
    assert (uneven.slots, uneven.lanes, uneven.prompts) == (12, 1, (8, 64))
    assert max(longer.tokens, uneven.tokens) <= pool.tokens
    assert other(num_samples=1, max_completion_length=4096).slots == 2  # one a device at least


def test_an_unwritable_workdir_is_named(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails(capsys, tmp_path, "--workdir", str(tmp_path / "file" / "run"))


@pytest.mark.parametrize("blocked", ["file", "notes"])
def test_an_export_that_could_not_be_written_is_refused_before_training(blocked, capsys, tmp_path):
    place = tmp_path / "run" / "export"
    if blocked == "file":
        place.parent.mkdir()
        place.write_text("")
    else:
        place.mkdir(parents=True)
        (place / "notes.txt").write_text("mine")
    assert f"{place} exists and holds no model" in fails(capsys, tmp_path)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_evaluation_needs_no_training_data_and_prints_json_that_says_of_what(tmp_path, capsys, caplog, quick_compile):
    start = ["--config", "smoke.py", "--mesh", "8x1", "--workdir", str(tmp_path / "run"), "--job", "evaluate"]
    assert launch.main([*start, "--data.train", "file:not-there.jsonl", "--reward.functions", "ended", "accuracy"]) == 0
    printed = capsys.readouterr()
    results = json.loads(printed.out)
    where = f"{tmp_path}/run holds no checkpoint"
    assert (results["step"], results["model"]) == (0, f"the initial model random:tiny, for {where}")
    assert f"evaluating the initial model random:tiny, for {where}" in printed.err
    assert results["eval/arithmetic_sum/avg@2"] == results["eval/arithmetic_sum/pass@1"]
    assert "absl" not in [record.name for record in caplog.records]


def test_export_without_a_checkpoint_says_so(capsys, tmp_path):
    assert "holds no checkpoint to export" in fails(capsys, tmp_path, "--job", "export")


@pytest.mark.parametrize(
    ("arguments", "dtype"), [([], "float32"), (["--model.export-dtype", "bfloat16"], "bfloat16")]
)  # fmt: skip
def test_an_export_has_the_dtype_that_the_config_names(arguments, dtype, tmp_path):
    from models.formats.load import find, load_policy
    from models.formats.storage import open_tensors

    _, config = launch.parse(["--config", "smoke.py", *arguments])
    found = find(config.model.source)
    write_export(config, load_policy(found), found, tmp_path)
    assert {tensor.dtype for tensor in open_tensors(tmp_path / "export").values()} == {dtype}
    assert json.loads((tmp_path / "export" / "config.json").read_text())["torch_dtype"] == dtype


def test_python_starts_again_once_with_the_allocator_settings(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    launch.keep_memory()
    (program, arguments, environment), *others = started
    assert (program, arguments, others) == (sys.executable, [sys.executable, *sys.orig_argv[1:]], [])
    assert environment["GLIBC_TUNABLES"] == ALLOCATOR["GLIBC_TUNABLES"]
    assert environment["PATH"] == os.environ["PATH"]
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=0")  # the user's
    launch.keep_memory()
    assert len(started) == 1


def test_on_cpu_no_program_is_queued_and_a_cache_of_the_users_own_is_kept(tmp_path):
    code = """
import jax
from jobs.arguments import Launch
from jobs.devices import start_devices
start_devices(Launch(config="", mesh="1x1"))
assert jax.config.jax_compilation_cache_dir.endswith("mine")
grow = jax.jit(lambda x: jax.lax.fori_loop(0, 10_000, lambda _, a: a * 1.0001, jax.numpy.full(100_000, x)))
assert grow(1.0).is_ready()
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "IGRPO_CACHE": str(tmp_path)}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "mine")
    subprocess.run([sys.executable, "-c", code], cwd=Path(launch.__file__).parent, env=environment, check=True)
