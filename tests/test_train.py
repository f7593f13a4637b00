"""Whole runs of configs/smoke.py through launch.py: meshes, resumption after SIGKILL, compilations, what is written."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import launch
from tests.runs import lasting, records, together

ROOT = Path(launch.__file__).parent
STEPS = 6
ARGUMENTS = ["--config", "smoke.py", "--train.steps", str(STEPS), "--train.save-every", "2"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One compilation cache for all runs, and none of the user's."""
    return str(tmp_path_factory.mktemp("cache"))


def start(workdir: Path, cache: str, *more: str, mesh: str = "1x1", devices: int = 1) -> subprocess.Popen:
    """A run on simulated devices, in a process of its own."""
    environment = os.environ | {"IGRPO_CACHE": cache, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    places = ["--mesh", mesh, "--cpu-devices", str(devices), "--workdir", str(workdir)]
    return subprocess.Popen(
        [sys.executable, "launch.py", *ARGUMENTS, *places, *more],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    """An uninterrupted run on one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(workdir, cache))
    return workdir


@pytest.mark.parametrize("mesh", ["8x1", "4x2", "2x4", "1x8", "2x2x2"])
def test_tokens_and_losses_are_the_same_on_every_mesh(mesh, alone, tmp_path, cache, monkeypatch, quick_compile):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    assert launch.main([*ARGUMENTS, "--mesh", mesh, "--workdir", str(tmp_path)]) == 0
    same_run(tmp_path, alone)


def same_run(workdir: Path, alone: Path) -> None:
    """Asserts the same tokens, and the same metrics up to rounding."""
    ours, theirs = records(workdir, "samples.jsonl"), records(alone, "samples.jsonl")
    assert len(ours) == 3 * STEPS
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["stages"] == other["stages"]
    for mine, other in zip(records(workdir), records(alone), strict=True):
        mine, other = lasting(mine), lasting(other)
        assert (
            mine.pop("sampling/logp_difference/max", 0) < 1e-4 and other.pop("sampling/logp_difference/max", 0) < 1e-4
        )
        assert mine.pop("sampling/logp_difference/mean", 0) < 1e-5
        other.pop("sampling/logp_difference/mean", 0)
        assert mine == pytest.approx(other, abs=1e-5)


def same_evaluations(workdir: Path, alone: Path) -> None:
    """Asserts the same lines and samples of evaluations, none twice."""
    lines = records(alone, "eval.jsonl")
    assert [line["step"] for line in lines] == [0, STEPS]
    assert (workdir / "eval.jsonl").read_bytes() == (alone / "eval.jsonl").read_bytes()
    files = {line["generations"] for line in lines}
    assert {f"generations/{path.name}" for path in (workdir / "generations").iterdir()} == files
    assert all((workdir / name).read_bytes() == (alone / name).read_bytes() for name in files)


def pair(workdir: Path, cache: str, *more: str) -> list[str]:
    """What two processes of four devices each say while they train together."""
    processes = [start(workdir, cache, *more, *arguments, mesh="8x1", devices=4) for arguments in together()]
    return [finish(process) for process in processes]


def same_weights(workdir: Path, alone: Path) -> None:
    """Asserts the same exported weights up to rounding."""
    mine, other = (load_file(run / "export" / "model.safetensors") for run in (workdir, alone))
    assert mine.keys() == other.keys()
    for name in mine:
        np.testing.assert_allclose(mine[name], other[name], atol=2e-5)


@pytest.mark.parametrize("rows", ["0", "1"], ids=["all rows at once", "rows refilled"])
def test_two_processes_are_one_run(rows, alone, tmp_path, cache):
    workdir = tmp_path / "run"
    first, second = pair(workdir, cache, "--sampling.rows", rows)
    assert "step 6/6" in first and "exported" in first
    assert "step" not in second and "exported" not in second
    assert {p.name for p in workdir.iterdir()} == {p.name for p in alone.iterdir()}
    same_run(workdir, alone)
    same_weights(workdir, alone)


@pytest.mark.parametrize("where", ["4x2", "2x2x2", "two processes"])
def test_a_checkpoint_resumes_on_other_devices(where, alone, tmp_path, cache, monkeypatch, quick_compile):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    workdir = tmp_path / "run"
    shutil.copytree(alone, workdir, ignore=lambda folder, names: {"export", "6"} & set(names))
    if where == "two processes":
        assert "after step 4" in pair(workdir, cache)[0]
    else:
        assert launch.main([*ARGUMENTS, "--mesh", where, "--workdir", str(workdir)]) == 0
    same_run(workdir, alone)
    same_weights(workdir, alone)


def test_a_killed_run_resumes_by_itself_and_ends_with_the_same_bits(alone, tmp_path, cache):
    workdir = tmp_path / "run"
    process = start(workdir, cache)
    while not (workdir / "checkpoints" / "2").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (workdir / "export").exists()
    assert "resumed" in finish(start(workdir, cache))
    for name in ("model.safetensors", "config.json"):
        assert (workdir / "export" / name).read_bytes() == (alone / "export" / name).read_bytes()
    assert [lasting(r) for r in records(workdir)] == [lasting(r) for r in records(alone)]
    assert records(workdir, "samples.jsonl") == records(alone, "samples.jsonl")
    same_evaluations(workdir, alone)


def test_a_run_killed_in_an_evaluation_makes_only_that_again(
    alone, tmp_path, cache, monkeypatch, capsys, quick_compile
):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    workdir = tmp_path / "run"
    shutil.copytree(alone, workdir, ignore=lambda folder, names: {"export", "6"} & set(names))
    command = [*ARGUMENTS, "--mesh", "8x1", "--workdir", str(workdir)]

    def killed(run, params):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("igrpo_jax.train"), "run_evaluations", killed)
        assert launch.main(command) == 130
    assert (workdir / "checkpoints" / "6").exists()
    assert launch.main(command) == 0
    output = capsys.readouterr().out
    assert "after step 6" in output and output.count("step 6/6") == 1
    same_run(workdir, alone)
    same_evaluations(workdir, alone)


def test_nothing_compiles_after_the_second_step(alone):
    counts = {r["step"]: r["compile/count"] for r in records(alone) if "compile/count" in r}
    assert counts[1] > 0
    assert [counts[step] for step in range(3, STEPS + 1)] == [0.0] * (STEPS - 2)


def test_a_run_writes_what_it_promises(alone):
    assert {p.name for p in alone.iterdir()} == {
        "config.json", "config.copy.json", "metrics.jsonl", "samples.jsonl", "eval.jsonl", "generations", "tensorboard",
        "checkpoints", "export",
    }  # fmt: skip
    assert sorted(p.name for p in (alone / "checkpoints").iterdir() if p.name.isdigit()) == ["4", "6"]
    before, *steps = records(alone)
    assert any(name.startswith("eval/") for name in before) and any(name.startswith("eval/") for name in steps[-1])
    wanted = """
        loss grad_norm learning_rate entropy kl clip_ratio/region_mean reward reward_std frac_reward_zero_std
        rewards/even_share/mean completions/mean_length completions/clipped_ratio num_tokens step_time draft/reward
        draft/reward_best refine/gain refine/copied refine/zero_std_right refine/zero_std_wrong
        sampling/logp_difference/mean sampling/row_utilization time/draft_s time/refine_s time/grade_s time/wait_s
        time/update_s train/padding_fraction update/dead_fraction tokens_per_s/sample
        tokens_per_s/train memory/peak_gb compile/count reward/timeouts reward/errors
    """
    assert set(wanted.split()) <= set(steps[0])


@pytest.mark.parametrize(
    ("variant", "arguments"),
    [
        ("grpo", ["--algorithm.num-drafts", "0", "--algorithm.loss-type", "dapo", "--sampling.top-p", "0.9"]),
        (
            "everything",
            [
                *["--algorithm.num-iterations", "2", "--algorithm.beta", "0.1", "--algorithm.draft-weight", "0.5"],
                *["--algorithm.loss-type", "gspo", "--algorithm.select", "random", "--sampling.stop-strings", "e"],
                *["--sampling.rows", "1", "--algorithm.rounds", "2"],
            ],
        ),
    ],
)
def test_variants_of_the_algorithm_train(variant, arguments, tmp_path, cache, monkeypatch, capsys, quick_compile):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    common = ["--config", "smoke.py", "--mesh", "8x1", "--workdir", str(tmp_path), "--train.steps", "2", "--data.eval"]
    assert launch.main([*common, "--train.no-export", "--train.report", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "report" / "report.html")
    assert (tmp_path / "report" / "report.html").is_file()
    first, second = (r for r in records(tmp_path) if r["step"])
    assert ("draft/reward" in first) == (variant != "grpo")
    if variant == "grpo":
        assert first["kl"] == second["kl"] == 0.0
        assert first["loss"] == pytest.approx(0.0, abs=0.2) and first["grad_norm"] > 0
    else:
        # The second update on one rollout starts from other weights than the reference and the sampler had.
        assert 0 < first["kl"] < second["kl"]
        assert first["num_tokens"] > 8 * (2 + 4) and 0 < first["round_1/reward"] < 2
        assert 0 < first["sampling/logp_difference/mean"] < 0.1
        rows = records(tmp_path, "samples.jsonl")
        assert all("e" not in c["text"][:-1] for row in rows for s in row["stages"] for c in s["completions"])


def test_report_and_export_jobs_work_on_a_finished_run(alone, tmp_path, cache, monkeypatch, capsys):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    out = tmp_path / "report"
    assert launch.main(["--job", "report", "--workdir", str(alone), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "draft/reward" in said and said.splitlines()[-1] == str(out / "report.html")
    page = (out / "report.html").read_text()
    assert "note:" not in said and page.count('id="chunk-') == 1 and "finished, 6 steps" in page
    first = (alone / "export" / "model.safetensors").read_bytes()
    unfinished = alone / "checkpoints" / "8.orbax-checkpoint-tmp"  # a living run may be writing one
    unfinished.mkdir()
    assert launch.main(["--config", "smoke.py", "--job", "export", "--mesh", "8x1", "--workdir", str(alone)]) == 0
    assert (alone / "export" / "model.safetensors").read_bytes() == first
    unfinished.rmdir()


def test_evaluate_job_scores_the_newest_checkpoint(alone, cache, monkeypatch, capsys, quick_compile):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    assert launch.main([*ARGUMENTS, "--job", "evaluate", "--mesh", "8x1", "--workdir", str(alone)]) == 0
    results = json.loads(capsys.readouterr().out)
    assert (results.pop("step"), results.pop("model")) == (STEPS, f"step {STEPS} of {alone}")
    logged = {name: value for name, value in records(alone)[-1].items() if name.startswith("eval/")}
    assert results == pytest.approx(logged, abs=1e-6)


def test_evaluation_may_be_longer_than_training(alone, cache, monkeypatch, capsys, quick_compile):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    longer = ["--eval.max-completion-length", "20", "--eval.num-samples", "3"]
    assert launch.main([*ARGUMENTS, *longer, "--job", "evaluate", "--mesh", "4x2", "--workdir", str(alone)]) == 0
    output = capsys.readouterr().out
    results = json.loads(output[output.index("{") :])
    name = next(name for name in results if name.endswith("mean_length"))
    assert 12 < results[name] <= 20  # smoke.py trains with 12
    assert any(name.endswith("avg@3") for name in results)


def test_another_model_in_the_workdir_is_refused_and_nothing_changes(alone, cache, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    model = alone / "export"
    config = json.loads((alone / "config.json").read_text())
    config["architecture"]["width"] = 32
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(config))
    before = (workdir / "config.json").read_bytes()
    assert launch.main(["--config", "smoke.py", "--workdir", str(workdir), "--model.source", str(model)]) == 2
    assert "holds a run of another model" in capsys.readouterr().err
    assert (workdir / "config.json").read_bytes() == before


def test_faults_are_left_out_and_too_many_in_a_row_end_the_run(tmp_path, cache, monkeypatch, capsys, quick_compile):
    """A loss that is NaN at every step: nothing is learned from it, and nothing of it is saved."""
    monkeypatch.setenv("IGRPO_CACHE", cache)
    gradients = importlib.import_module("igrpo_jax.learning.gradients")
    loss = gradients.igrpo_loss
    monkeypatch.setattr(gradients, "igrpo_loss", lambda *given: (loss(*given)[0] * np.float32("nan"), loss(*given)[1]))
    workdir = tmp_path / "run"
    command = ["--config", "smoke.py", "--mesh", "8x1", "--workdir", str(workdir), "--data.eval", "--train.save-every"]
    assert launch.main([*command, "1", "--train.max-skipped", "2"]) == 2
    error = capsys.readouterr().err
    assert "the last 3 steps up to 3 was infinite or NaN (loss nan" in error and "grad_norm" in error
    assert [record["update/nonfinite"] for record in records(workdir)] == [1.0, 1.0, 1.0]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["1", "2"]
    assert not (workdir / "export").exists()


CHOOSY = [
    *["--data.train", "arithmetic:sum?split=train&limit=24", "--data.eval", "--reward.functions", "ended"],
    *["--sampling.stop-strings", *"etaoinshrl", "--algorithm.skip-solved", "--algorithm.dynamic-sampling"],
    *["--algorithm.extra-problems", "1.5", "--algorithm.replay", "0.5", "--algorithm.tie-break", "longest"],
]
"""A run in which problems are left out, others take their place, and earlier drafts are shown again."""


@pytest.fixture(scope="module")
def choosy(tmp_path_factory, cache):
    workdir = tmp_path_factory.mktemp("choosy") / "run"
    finish(start(workdir, cache, *CHOOSY))
    return workdir


def test_a_run_that_chooses_its_problems_says_what_it_chose(choosy):
    steps = records(choosy)
    total = {name: sum(record.get(name, 0.0) for record in steps) for name in steps[0]}
    assert len(steps) == STEPS and total["draft/skipped"] > 0 and total["frac_reward_zero_std"] > 0
    assert total["sampling/extra_problems"] > 0 and 0 < total["sampling/extra_tokens"] < total["num_tokens"]
    assert sum(record.get("draft/replayed", 0.0) for record in steps) > 0
    for record in steps:
        assert record["sampling/missing_problems"] == 0 or record["sampling/extra_problems"] > 0
        assert record["update/dead_fraction"] == record["sampling/missing_problems"] / 8
    assert [record["compile/count"] for record in steps[2:]] == [0.0] * (STEPS - 2)


@pytest.mark.parametrize("where", ["4x2", "two processes"])
def test_problems_and_drafts_are_chosen_alike_on_other_devices_and_after_a_restart(
    where, choosy, tmp_path, cache, monkeypatch, quick_compile
):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    workdir = tmp_path / "run"
    shutil.copytree(choosy, workdir, ignore=lambda folder, names: {"export", "6"} & set(names))
    if where == "two processes":
        assert "after step 4" in pair(workdir, cache, *CHOOSY)[0]
    else:
        assert launch.main([*ARGUMENTS, *CHOOSY, "--mesh", where, "--workdir", str(workdir)]) == 0
    texts = [
        [[(stage["draft"], [c["text"] for c in stage["completions"]]) for stage in record["stages"]] for record in some]
        for some in (records(workdir, "samples.jsonl"), records(choosy, "samples.jsonl"))
    ]
    assert texts[0] == texts[1] and any(isinstance(draft, dict) for record in texts[0] for draft, _ in record)
    for mine, other in zip(records(workdir), records(choosy), strict=True):
        names = [name for name in other if name.startswith(("reward", "draft/", "refine/", "sampling/extra", "num_"))]
        assert [mine[name] for name in names] == pytest.approx([other[name] for name in names], abs=1e-6)
    drafts = [(run / "checkpoints" / "6" / "default" / "drafts.json").read_bytes() for run in (workdir, choosy)]
    assert drafts[0] == drafts[1] != b"{}"
    same_weights(workdir, choosy)


def test_a_run_that_is_told_to_leave_and_cannot_save_says_so_and_ends_with_2(
    tmp_path, cache, monkeypatch, capfd, quick_compile
):
    monkeypatch.setenv("IGRPO_CACHE", cache)
    training, full = importlib.import_module("igrpo_jax.train"), []
    step = training.train_step

    def told(*given, **options):
        made = step(*given, **options)
        if given[2] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return made

    def no_room(folder):
        full.append(folder)
        raise OSError(28, "No space left on device")

    command = [*ARGUMENTS, "--train.steps", "40", "--mesh", "8x1", "--workdir", str(tmp_path), "--data.eval"]
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", told)
        patch.setattr("igrpo_jax.records.checksums.write_checksums", no_room)
        assert launch.main([*command, "--grace", "300"]) == 2
    said = capfd.readouterr().err
    assert "could not be saved ([Errno 28] No space left on device), the last one before leaving; make room" in said
    assert len(full) >= 2 and "saved after step" not in said and "Traceback" not in said
    assert not (tmp_path / "lease.json").exists()
