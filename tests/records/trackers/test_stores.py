"""The trackers themselves, with their local stores. They are large, so they have an environment of their own:

make trackers
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from igrpo_jax.records.trackers import Tracker

pytestmark = [pytest.mark.trackers, pytest.mark.filterwarnings("default")]

NAME, STEPS = "eval/aime24/avg@8", [(0, {"reward": 0.25}), (1, {"reward": 0.5}), (1, {"eval/aime24/avg@8": 0.75})]


@pytest.fixture
def track(tmp_path, monkeypatch):
    """`track(kind)` records `STEPS` as two runs of one workdir, the second a resumption; gives its directory."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("DO_NOT_TRACK", "true")

    def run(kind: str) -> Path:
        workdir, said = tmp_path / "run", []
        workdir.mkdir()
        for resumed, steps in ((False, STEPS[:1]), (True, STEPS[1:])):
            config = {"optim.learning_rate": 1e-5, "data.train": ["a", "b"], "prompt.system": "x" * 9000}
            tracker = Tracker(kind, workdir, config, resumed=resumed, say=said.append, finish=300.0)
            for step, values in steps:
                tracker.log(step, values)
            tracker.close()
        assert not said, (workdir / "tracker.log").read_text()
        return workdir

    return run


def test_trackio(track, tmp_path):
    import sqlite3

    track("trackio")
    with sqlite3.connect(tmp_path / "trackio" / "igrpo_jax.db") as store:
        rows = store.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        configs = store.execute("SELECT config FROM configs").fetchall()
    store.close()
    assert len({name for name, *_ in rows}) == 1 and rows[0][0].startswith("run-")
    ours = [(step, {k: v for k, v in json.loads(values).items() if k in ("reward", NAME)}) for _, step, values in rows]
    assert [one for one in ours if one[1]] == STEPS
    assert "optim.learning_rate" in str(configs[0][0])


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, behind wandb's header of seven bytes."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # the rest of a block that holds no header is empty
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def test_wandb(track):
    from wandb.proto import wandb_internal_pb2

    workdir, seen, ids = track("wandb"), [], set()
    for path in sorted(workdir.glob("wandb/offline-run-*/run-*.wandb")):
        for data in leveldb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            if record.WhichOneof("record_type") == "history":
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                seen.append((json.loads(items["_step"]), {k: json.loads(items[k]) for k in items if k[0] != "_"}))
    assert seen == [(0, {"reward": 0.25}), (1, {"reward": 0.5, NAME: 0.75})]
    assert ids == {json.loads((workdir / "tracker.json").read_text())["identity"]}


def test_mlflow(track):
    from mlflow import MlflowClient

    track("mlflow")
    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("igrpo_jax").experiment_id])
    history = {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert history == {"reward": [(0, 0.25), (1, 0.5)], "eval/aime24/avg_at_8": [(1, 0.75)]}
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    assert run.data.params["optim.learning_rate"] == "1e-05" and len(run.data.params["prompt.system"]) == 500
