"""Scores of evaluations in the report: every one in its figure, and the last ones in the table."""

import json

from igrpo_jax.report import figures
from igrpo_jax.report.evaluations import newest, scores_of
from igrpo_jax.report.runs import read_run
from igrpo_jax.report.write import write_report
from tests.report import made


def test_a_figure_of_matched_answers_shows_every_evaluation(tmp_path):
    """Bare answers are as many as the tokens of the refined ones allow, another n nearly every time."""
    workdir = made.run(tmp_path / "run", steps=4)
    (workdir / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in matched_lines()))
    run = read_run(workdir, "run", print)
    assert run
    scores = scores_of(run)
    kept = [score for score in scores if score.settings]  # those of metrics.jsonl, at step 0, are another matter
    shown = {(row["series"], row["step"]): (row["metric"], row["value"]) for row in figures.comparable(kept)}
    assert shown == {
        ("avg@n bare", 1): ("avg@11", 0.1), ("pass@4 bare", 1): ("pass@4", 0.3), ("maj@n bare", 1): ("maj@11", 0.4),
        ("avg@n bare", 2): ("avg@9", 0.2), ("pass@4 bare", 2): ("pass@4", 0.4), ("maj@n bare", 2): ("maj@9", 0.5),
        ("avg@n bare", 3): ("avg@12", 0.3), ("pass@4 bare", 3): ("pass@4", 0.5), ("maj@n bare", 3): ("maj@12", 0.6),
        ("avg@n refined, self", 1): ("avg@4", 0.5), ("pass@4 refined, self", 1): ("pass@4", 0.7),
        ("maj@n refined, self", 1): ("maj@4", 0.8),
        ("avg@n refined, self", 2): ("avg@4", 0.6), ("pass@4 refined, self", 2): ("pass@4", 0.8),
        ("maj@n refined, self", 2): ("maj@4", 0.9),
        ("avg@n refined, self", 3): ("avg@4", 0.7), ("pass@4 refined, self", 3): ("pass@4", 0.9),
        ("maj@n refined, self", 3): ("maj@4", 1.0),
    }  # fmt: skip
    drawn = figures.evaluation(kept, "held out", "evaluation-1")
    assert drawn is not None and "n is all answers of a problem" in drawn.caption


def test_the_newest_scores_are_those_of_the_last_evaluation(tmp_path):
    workdir = made.run(tmp_path / "run", steps=4)
    lines = matched_lines()
    other = lines[2] | {"temperature": 0.6, "num_samples": 1, "n": 1, "scores": {"avg@1": 0.25}}
    (workdir / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, other]))
    run = read_run(workdir, "run", print)
    assert run
    found = newest(scores_of(run._replace(evaluations=run.evaluations[:1])))  # step 0, without settings
    assert [(s.step, s.mode, s.metric) for s in found] == [
        *((3, "bare", metric) for metric in ("avg@12", "pass@4", "pass@12", "maj@4", "maj@12")),
        *((3, "refined, self", metric) for metric in ("avg@4", "pass@4", "maj@4")),
        (2, "bare", "avg@1"),
    ]
    assert found[0].settings == "temperature 1" and found[0].taken == "12 samples, 1,200 tokens sampled"
    page, _ = write_report([workdir], tmp_path / "out")
    assert "temperature 0.6, 1 samples, 900 tokens sampled" in page.read_text()
    only = newest(scores_of(run._replace(scores=[])))
    assert [(s.step, s.metric) for s in only] == [(4, "avg@4"), (4, "pass@1"), (4, "pass@4"), (4, "maj@4")]


def matched_lines() -> list[dict]:
    """Lines of eval.jsonl of three steps, bare answers at the cost of the refined ones."""
    lines = []
    for step, n in ((1, 11), (2, 9), (3, 12)):
        bare = {"step": step, "set": "held out", "mode": "bare", "select": None, "num_samples": 4, "temperature": 1.0}
        refined = bare | {"mode": "refined", "select": "self", "num_drafts": 2, "n": 4, "sampled_tokens": n * 101}
        of = lambda base, k, step=step: {
            f"avg@{k}": round(base + step / 10, 1), "pass@4": round(base + 0.2 + step / 10, 1), f"pass@{k}": 0.9,
            "maj@4": 0.5, f"maj@{k}": round(base + 0.3 + step / 10, 1),
        }  # fmt: skip
        lines.append(bare | {"n": n, "sampled_tokens": n * 100, "scores": of(0.0, n)})
        lines.append(refined | {"scores": of(0.4, 4) | {"pass@4": round(0.6 + step / 10, 1)}})
    return lines
