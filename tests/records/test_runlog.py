"""What is written down survives a kill and says the same after resuming."""

import json
import os

import pytest
from rich.console import Console

from igrpo_jax.records.runlog import RunLog, mean_of, read_metrics, summary_table


def open_log(folder, completed=0, **console):
    return RunLog(folder, steps=4, completed=completed, console=Console(width=200, record=True, **console))


def test_resuming_forgets_what_came_after_the_checkpoint_and_a_torn_line(tmp_path):
    log = open_log(tmp_path)
    for step in (1, 2, 3):
        log.metrics(step, {"reward": float(step), "odd": float("nan")})
        log.samples(step, [{"question": f"q{step}"}])
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    open_log(tmp_path, completed=2).close()
    assert read_metrics(tmp_path) == [{"step": s, "reward": float(s), "odd": None} for s in (1, 2)]
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert samples == [{"step": 1, "question": "q1"}, {"step": 2, "question": "q2"}]


def test_a_run_that_begins_again_keeps_nothing(tmp_path):
    for reward in (0.5, 0.25):
        log = open_log(tmp_path)
        assert not log.evaluated(0)
        log.metrics(0, {"eval/x/avg@1": reward})
        log.metrics(1, {"reward": reward})
        log.samples(1, [{"question": "q"}])
        assert log.evaluated(0) and not log.evaluated(1)
        log.close()
    assert read_metrics(tmp_path) == [{"step": 0, "eval/x/avg@1": 0.25}, {"step": 1, "reward": 0.25}]
    assert (tmp_path / "samples.jsonl").read_text().count("\n") == 1


def test_texts_with_line_separators_of_unicode_survive_resuming(tmp_path):
    rows = [
        {"step": step, "question": f"a{mark}b"} for step, mark in ((1, "\u2028"), (2, "\u2029"), (3, "\x85"), (4, "\r"))
    ]
    log = open_log(tmp_path)
    for row in rows:
        log.samples(row["step"], [{"question": row["question"]}])
    log.close()
    open_log(tmp_path, completed=4).close()
    lines = (tmp_path / "samples.jsonl").read_bytes().strip().split(b"\n")
    assert [json.loads(line) for line in lines] == rows


def test_plain_lines_without_a_terminal_name_reward_and_not_loss(tmp_path):
    log = open_log(tmp_path, force_terminal=False)
    log.advance(1, {"reward": 0.5, "loss": 0.1, "entropy": 2.0})
    log.close()
    assert log.console.export_text().strip() == "step 1/4  reward 0.5  entropy 2"


def test_tensorboard_events_are_written(tmp_path):
    log = open_log(tmp_path)
    log.metrics(1, {"reward": 0.5})
    log.close()
    event = next((tmp_path / "tensorboard").iterdir())
    assert b"reward" in event.read_bytes()


def test_summary_compares_first_and_last_steps_and_evaluations():
    records = [{"step": 0, "eval/x/avg@4": 0.25}]
    records += [{"step": s, "reward": s / 10, "step_time": 1.0} for s in range(1, 11)]
    records[-1]["eval/x/avg@4"] = 0.75
    records[0]["eval/x/odd"] = records[-1]["eval/x/odd"] = None  # what is not finite
    records[1]["entropy"] = None
    console = Console(width=120, record=True)
    console.print(summary_table(records))
    rows = [line.replace("│", " ").split() for line in console.export_text().splitlines()]
    assert ["reward", "0.300", "0.800"] in rows
    assert ["eval/x/avg@4", "0.250", "0.750"] in rows
    assert ["eval/x/odd"] in rows and ["entropy"] in rows
    assert mean_of([{"a": None}, {"a": 2.0}], "a") == 2.0


def test_evaluations_of_another_n_are_compared_by_kind():
    before = {"eval/x/avg@8": 0.25, "eval/x/avg@8_stderr": 0.1, "eval/x/pass@1": 0.25, "eval/x/pass@8": 0.5}
    before |= {"eval/x/maj@4": 0.3, "eval/x/maj@8": 0.4, "eval/x/odd@3": 1.0}
    after = {"eval/x/refined/avg@4": 0.8, "eval/x/avg@10": 0.5, "eval/x/avg@10_stderr": 0.2, "eval/x/pass@1": 0.5}
    after |= {
        "eval/x/pass@8": 0.7,
        "eval/x/pass@10": 0.9,
        "eval/x/maj@4": 0.6,
        "eval/x/maj@8": 0.7,
        "eval/x/maj@10": 0.8,
    }
    console = Console(width=120, record=True)
    console.print(summary_table([{"step": 0} | before, {"step": 9} | after]))
    rows = [line.replace("\u2502", " ").split() for line in console.export_text().splitlines()]
    assert [row for row in rows if row and row[0].startswith("eval/")] == [
        ["eval/x/avg@n", "0.250", "0.500"],
        ["eval/x/avg@n_stderr", "0.100", "0.200"],
        ["eval/x/pass@1", "0.250", "0.500"],
        ["eval/x/pass@8", "0.500", "0.700"],
        ["eval/x/maj@4", "0.300", "0.600"],
        ["eval/x/maj@8", "0.400", "0.700"],
        ["eval/x/odd@3", "1.000"],
        ["eval/x/refined/avg@4", "0.800"],
        ["eval/x/pass@10", "0.900"],
        ["eval/x/maj@n", "0.400", "0.800"],
    ]


def test_a_workdir_without_a_run_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ValueError, match="--workdir of a run that has trained"):
        read_metrics(tmp_path)


LINES = [
    json.dumps({"step": step, "question": f"größer {step}?", "gold": {"step": 1}}, ensure_ascii=False).encode()
    for step in range(1, 6)
]


@pytest.mark.parametrize(
    ("damaged", "kept", "named"),
    [
        (LINES[2][:30] + b"\xff" + LINES[2][31:] + b"\n", [1, 2, 4, 5], "line 3:"),  # no UTF-8
        (LINES[2][:9] + b"\x00" + LINES[2][10:] + b"\n", [1, 2, 4, 5], "line 3:"),
        (LINES[2][:20] + b"\n" + LINES[2][20:] + b"\n", [1, 2, 4, 5], "line 3, 4:"),
        (LINES[2] + b"\x0b", [1, 2, 3, 4, 5], "line 3:"),  # the end of the line
        (b"\n" + LINES[2] + b"\n", [1, 2, 3, 4, 5], None),
        (b"[1]\n", [1, 2, 4, 5], "line 3:"),
        (b'{"step": "3"}\n', [1, 2, 4, 5], "line 3:"),
        (b'{"reward": 3}\n', [1, 2, 4, 5], "line 3:"),
        (b"[" * 100_000 + b"\n", [1, 2, 4, 5], "line 3:"),
        (bytes(4096) + b"\n", [1, 2, 4, 5], "line 3:"),
    ],
)  # fmt: skip
def test_damage_costs_its_own_line_and_no_other(damaged, kept, named, tmp_path):
    path = tmp_path / "samples.jsonl"
    before = [line + b"\n" for line in LINES]
    path.write_bytes(b"".join([*before[:2], damaged, *before[3:]]))
    log = open_log(tmp_path, completed=5)
    log.close()
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [json.loads(LINES[k - 1]) for k in kept]
    said = log.console.export_text()
    assert (f"{path}, {named} damaged" in said) if named else not said


@pytest.mark.parametrize("cut", [1, 25, 26, 27])
def test_a_torn_last_line_goes_without_a_word_within_a_letter_too(cut, tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_bytes(LINES[0] + b"\n" + LINES[1][:-cut])
    log = open_log(tmp_path, completed=5)
    log.close()
    assert path.read_bytes() == LINES[0] + b"\n" and not log.console.export_text()
    (tmp_path / "metrics.jsonl").write_bytes(LINES[0] + b"\n" + "ä".encode()[:1])
    assert [record["step"] for record in read_metrics(tmp_path)] == [1]


def test_a_pipe_in_place_of_a_log_is_refused(tmp_path):
    os.mkfifo(tmp_path / "samples.jsonl")
    with pytest.raises(ValueError, match=r"samples\.jsonl is no plain file; move it away"):
        open_log(tmp_path)
    (tmp_path / "samples.jsonl").rename(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        read_metrics(tmp_path)
