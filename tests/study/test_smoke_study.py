"""configs/studies/smoke.py for real: killed in the middle, resumed, and its table recomputed from the records."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launch

ROOT = Path(launch.__file__).parent
T1 = 12.706204736432095
"""Student's t for 95 % with one degree of freedom."""


def start(root: Path, cache: Path) -> subprocess.Popen:
    command = ["--job", "compare", "--config", "studies/smoke.py", "--workdir", str(root), "--cpu-devices", "1"]
    environment = os.environ | {"IGRPO_CACHE": str(cache), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.Popen(
        [sys.executable, "launch.py", *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_it_survives_a_kill_and_its_table_is_right(tmp_path):
    root, cache = tmp_path / "root", tmp_path / "cache"
    process = start(root, cache)
    while not (root / "igrpo" / "seed-0" / "checkpoints" / "2").exists():  # the second of four runs, in its middle
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in (root / "grpo" / "seed-0").rglob("*") if path.is_file()}
    process = start(root, cache)
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output
    assert "4 of 4" in output and "wrote" in output.splitlines()[-1]
    assert before == {path: path.stat().st_mtime_ns for path in (root / "grpo" / "seed-0").rglob("*") if path.is_file()}
    assert (
        "resumed" in (root / "igrpo" / "seed-0.log").read_text()
        or "step 4/4" in (root / "igrpo" / "seed-0.log").read_text()
    )
    check_table(root)


def check_table(root: Path) -> None:
    """Recomputes what the table says with plain loops over the records of the runs."""
    made = json.loads((root / "comparison.json").read_text())
    runs = json.loads((root / "study.json").read_text())["runs"]
    assert [run["status"] for run in runs] == ["finished"] * 4
    entropies: dict[str, list[float]] = {"grpo": [], "igrpo": []}
    scores: dict[str, list[float]] = {"grpo": [], "igrpo": []}
    spent: dict[str, list[list[float]]] = {"grpo": [], "igrpo": []}
    for run in runs:
        records = read(root / run["workdir"] / "metrics.jsonl")
        steps = [record for record in records if "num_tokens" in record]
        assert [step["step"] for step in steps] == [1, 2, 3, 4]
        entropies[run["arm"]].append(steps[-1]["entropy"])  # the last quarter
        (last,) = [r for r in records if r["step"] == 4 and any(name.startswith("eval/") for name in r)]
        scores[run["arm"]].append(last["eval/arithmetic_sum/even_share/avg@2"])
        sampled, trained = (sum(step.get(name) or 0 for step in steps) for name in ("num_tokens", "train/tokens"))
        samples = read(root / run["workdir"] / "samples.jsonl")
        a_problem = sum(len(stage["completions"]) for stage in samples[0]["stages"])
        spent[run["arm"]].append([8 * 4, 8 * 4 * a_problem, sampled, trained])
    for metric, values in {"entropy": entropies, "eval/mean/even_share/avg": scores}.items():
        for arm in values:
            (row,) = [row for row in made["rows"] if (row["arm"], row["metric"]) == (arm, metric)]
            assert row["seeds"] == pytest.approx(values[arm]) and row["mean"] == pytest.approx(sum(values[arm]) / 2)
        (found,) = [one for one in made["differences"] if one["metric"] == metric]
        differences = [ours - theirs for theirs, ours in zip(values["grpo"], values["igrpo"], strict=True)]
        assert (found["arm"], found["against"], found["mean"]) == ("igrpo", "grpo", pytest.approx(sum(differences) / 2))
        if not (root / runs[0]["workdir"] / "eval.jsonl").exists() or metric == "entropy":
            half = T1 * statistics.stdev(differences) / math.sqrt(2)
            assert (found["low"], found["high"]) == pytest.approx(
                (sum(differences) / 2 - half, sum(differences) / 2 + half)
            )
    names = ("problems", "sampled_completions", "sampled_tokens", "trained_tokens")
    for arm, lists in spent.items():
        its = made["budget"]["by_arm"][arm]
        assert [its[name] for name in names] == pytest.approx([sum(column) / 2 for column in zip(*lists, strict=True)])
    by_arm = made["budget"]["by_arm"]
    assert by_arm["grpo"]["sampled_completions"] == by_arm["igrpo"]["sampled_completions"] == 192
    text = (root / "comparison.md").read_text()
    assert "| 192 (1.000x) |" in text and "not distinguishable" in text
