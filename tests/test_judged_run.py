"""A run whose reward is a judge: a real server on the loopback address, slow for one problem, and then dead."""

import json
import threading

import pytest

import launch
from tests.judge_server import Reply, completion, running

SMALL = (
    *("--train.steps", "1", "--train.problems-per-step", "8", "--train.no-export", "--data.eval"),
    *("--reward.functions", "judge", "ended", "--judge.model", "j", "--judge.retries", "0"),
    *("--judge.prompt", "{question}\n{completion}", "--judge.max-failures", "6"),
)


WANDB = """
import json

class init:
    def __init__(self, *, dir, config, **_):
        self.file = open(dir / "tracked.jsonl", "w")
        self.file.write(json.dumps(config) + "\\n")
    def log(self, values, step):
        self.file.write(json.dumps({"step": step} | values) + "\\n")
    def finish(self):
        self.file.close()
"""

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start(tmp_path, monkeypatch, cache):
    monkeypatch.delenv("IGRPO_TRACEBACK", raising=False)
    monkeypatch.setenv("IGRPO_CACHE", str(cache))

    def start(*arguments: str) -> int:
        return launch.main(
            ["--config", "smoke.py", "--mesh", "8x1", "--workdir", str(tmp_path / "run"), *SMALL,
             "--judge.cache", str(tmp_path / "judge.sqlite"), *arguments]
        )  # fmt: skip

    return start


def test_a_slow_judge_delays_its_own_groups_and_what_it_did_is_recorded(start, tmp_path, monkeypatch):
    """The first problem's drafts are judged when refinements of all others of that step have been asked for."""
    asked, lock, others, first = {}, threading.Lock(), threading.Event(), []

    def answer(text: str, before: int) -> Reply:
        question = text.partition("\n")[0]
        with lock:
            first.append(question) if not first else None
            asked[question] = asked.get(question, 0) + 1
            if len(asked) >= 8 and sum(count >= 3 for name, count in asked.items() if name != first[0]) >= 7:
                others.set()
        if question == first[0] and not others.wait(60):
            return Reply(status=500)
        return Reply(completion("?" if before % 5 == 4 else f"Score: {before % 11}"))

    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(WANDB)
    with running() as server:
        server.answer = answer
        assert start("--judge.base-url", server.url, "--judge.timeout", "90.0", "--track", "wandb") == 0
        requests = len(server.requests)
    assert others.is_set()
    (record,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert record["judge/requests"] == requests and requests + record["judge/cached"] == 8 * (2 + 4)
    assert record["judge/completion_tokens"] == 7 * requests and record["judge/prompt_tokens"] == 100 * requests
    assert record["judge/unparsed"] >= requests // 5 and record["judge/failed"] == record["reward/errors"] == 0
    assert 0 < record["rewards/judge/mean"] < 1 and record["time/grade_s"] > 0
    config, tracked = map(json.loads, (tmp_path / "run" / "tracked.jsonl").read_text().splitlines())
    assert tracked == {name: value for name, value in record.items() if value is not None} and tracked["step"] == 1
    assert (config["judge.model"], config["reward.functions"]) == ("j", ["judge", "ended"])
    sample = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert "judged" in json.dumps(sample)


def test_a_dead_judge_ends_the_run_in_one_line(start, capsys):
    with running() as gone:
        pass
    assert start("--judge.base-url", gone.url) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: the judge j at http://127.0.0.1") and "6 completions in a row" in lines[-1]
    assert "see that it runs" in lines[-1] and sum("has not graded a completion" in line for line in lines) <= 1
    assert not [line for line in lines if "Traceback" in line]
