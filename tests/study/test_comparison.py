"""A comparison of written records, against a second implementation with plain loops."""

import json
import math
import random
import statistics

import pytest

from igrpo_jax.config import Config
from igrpo_jax.study.comparison import comparison
from igrpo_jax.study.config import Arm, Study
from igrpo_jax.study.results import read_results
from igrpo_jax.study.tables import markdown, on_terminal, tables

T2 = 4.302652729911275
STUDY = Study(
    title="Two | arms",
    config=Config(),
    arms={
        "grpo": Arm(label="GRPO", paper={"eval/mean/avg": 0.6829}),
        "igrpo": Arm(label="iGRPO", overrides={"algorithm.beta": 0.1}, paper={"eval/mean/avg": 0.6987, "made up": 2}),
    },
    baseline="grpo",
    seeds=(0, 1, 2),
    metrics=("eval/*", "entropy"),
)
PROBLEMS = {"a": 40, "b": 7}


@pytest.fixture
def found(tmp_path):
    """Three seeds of two arms; in one of them all problems are solved a little more often."""
    noise, made = random.Random(0), {}
    hard = {name: [noise.random() * 0.7 for _ in range(count)] for name, count in PROBLEMS.items()}
    for arm, gain in (("grpo", 0.0), ("igrpo", 0.25)):
        for seed in STUDY.seeds:
            workdir = tmp_path / f"{arm}-{seed}"
            workdir.mkdir()
            steps = [
                {"step": s, "num_tokens": 10.0 + seed, "step_time": 1.0, "entropy": gain + seed, "train/tokens": 5.0}
                for s in (1, 2)
            ]
            lines = []
            for name in PROBLEMS:
                right = [[i, sum(noise.random() < p + gain for _ in range(8)), 8] for i, p in enumerate(hard[name])]
                scores = {"avg@8": statistics.fmean(r / n for _, r, n in right)}
                lines.append(
                    {"step": 2, "set": name, "mode": "bare", "select": None, "scores": scores, "by_problem": right}
                )
            own = {"step": 2} | {f"eval/{line['set']}/{n}": v for line in lines for n, v in line["scores"].items()}
            steps.append(own)
            for file, records in (("metrics.jsonl", steps), ("eval.jsonl", lines)):
                (workdir / file).write_text("".join(json.dumps(record) + "\n" for record in records))
            made.setdefault(arm, {})[seed] = read_results(workdir, STUDY.config, STUDY.metrics)
    return tmp_path, made


def raw(folder, arm, seed, name) -> list[float]:
    """The share of right answers of each problem, straight from the file."""
    lines = map(json.loads, (folder / f"{arm}-{seed}" / "eval.jsonl").read_text().splitlines())
    return [right / n for line in lines if line["set"] == name for _, right, n in line["by_problem"]]


def row(rows, arm, metric):
    (found,) = [one for one in rows if (one["arm"], one["metric"]) == (arm, metric)]
    return found


def test_means_and_seeds(found):
    folder, results = found
    made = comparison(STUDY, results)
    for arm in STUDY.arms:
        by_seed = [
            statistics.fmean(statistics.fmean(raw(folder, arm, seed, name)) for name in PROBLEMS)
            for seed in STUDY.seeds
        ]
        its = row(made["rows"], arm, "eval/mean/avg")
        assert its["seeds"] == pytest.approx(by_seed) and its["of"] == [0, 1, 2]
        assert its["mean"] == pytest.approx(statistics.fmean(by_seed))
        assert its["paper"] == STUDY.arms[arm].paper["eval/mean/avg"]
    entropy = row(made["rows"], "igrpo", "entropy")
    half = T2 * 1.0 / math.sqrt(3)
    assert (entropy["mean"], entropy["low"], entropy["high"]) == pytest.approx((1.25, 1.25 - half, 1.25 + half))
    assert "made up" not in {row["metric"] for row in made["rows"]}


def test_the_difference_is_paired_by_seed_and_problem(found):
    folder, results = found
    made = row(comparison(STUDY, results)["differences"], "igrpo", "eval/mean/avg")
    seeds, problems, noise, weights = [0.0] * 3, 0.0, 0.0, 0.0
    for name, count in PROBLEMS.items():
        cells = [
            [x - y for x, y in zip(raw(folder, "igrpo", s, name), raw(folder, "grpo", s, name), strict=True)]
            for s in STUDY.seeds
        ]
        rows = [sum(its) / count for its in cells]
        columns = [sum(its[p] for its in cells) / 3 for p in range(count)]
        mean = sum(rows) / 3
        seeds = [total + one / 2 for total, one in zip(seeds, rows, strict=True)]
        rest = sum((cells[s][p] - rows[s] - columns[p] + mean) ** 2 for s in range(3) for p in range(count))
        part = statistics.variance(columns) / count / 4
        both = rest / (2 * (count - 1)) / (3 * count) / 4
        problems, noise = problems + part, noise + both
        weights += part**2 / (count - 1) + both**2 / (2 * (count - 1))
    by_seed = statistics.variance(seeds) / 3
    variance = max(by_seed, by_seed + problems - noise)
    degrees = max(2.0, variance**2 / (weights + by_seed**2 / 2))
    assert made["mean"] == pytest.approx(sum(seeds) / 3)
    half = made["high"] - made["mean"]
    assert made["mean"] - made["low"] == pytest.approx(half)
    from scipy.stats import t

    assert t.cdf(half / math.sqrt(variance), degrees) == pytest.approx(0.975)
    assert (made["against"], made["verdict"], made["of"]) == ("grpo", "better", [0, 1, 2])


def test_only_seeds_that_both_have_are_compared_and_one_gives_no_verdict(found):
    _, results = found
    made = comparison(
        STUDY, {"grpo": {0: results["grpo"][0], 1: results["grpo"][1]}, "igrpo": {1: results["igrpo"][1]}}
    )
    one = row(made["differences"], "igrpo", "eval/mean/avg")
    assert (one["of"], one["low"], one["high"], one["verdict"]) == ([1], None, None, None)
    assert "one seed, no interval" in markdown(STUDY, made)
    assert comparison(STUDY, {})["budget"] == {"matched": "sampled_completions", "by_arm": {}}


def test_other_problems_cannot_be_paired_so_seeds_are(found):
    _, results = found
    score = results["igrpo"][0].scores["eval/a/avg"]
    shorter = score._replace(cells=[dict(list(score.cells[0].items())[:-1])])
    results["igrpo"][0].scores["eval/a/avg"] = shorter
    made = row(comparison(STUDY, results)["differences"], "igrpo", "eval/a/avg")
    by_seed = [
        results["igrpo"][s].scores["eval/a/avg"].value - results["grpo"][s].scores["eval/a/avg"].value
        for s in STUDY.seeds
    ]
    half = T2 * statistics.stdev(by_seed) / math.sqrt(3)
    assert made["high"] - made["low"] == pytest.approx(2 * half)


def test_what_was_spent_is_a_mean_over_seeds(found):
    _, results = found
    budget = comparison(STUDY, results)["budget"]
    assert budget["matched"] == "sampled_completions"
    assert budget["by_arm"]["grpo"] == {
        "problems": 256, "sampled_completions": 2048, "sampled_tokens": 22, "trained_tokens": 10, "optimizer_steps": 2,
        "seconds": 2,
    }  # fmt: skip


def test_tables_say_it_all(found):
    from rich.console import Console

    _, results = found
    made = comparison(STUDY, results)
    text = markdown(STUDY, made, ["One note."])
    assert text.startswith("# Two | arms\n") and "One note." in text
    line = next(line for line in text.splitlines() if "| iGRPO |" in line)
    assert "| 3 | 0.6987 | +0." in line and line.endswith("| better |")
    assert "| 2,048 (1.000x) |" in text and "sampled completions (matched)" in text
    assert {line.count(" | ") for line in text.splitlines() if line.startswith("| ")} == {6}  # both have seven columns
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for cells in tables(STUDY, made):
        console.print(on_terminal(cells))
    console.file.close()
    assert "better" in (shown := console.export_text()) and "eval/mean/avg" in shown
