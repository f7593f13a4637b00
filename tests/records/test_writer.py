"""A disk that is full, slow or back again: the run goes on, and what was written is whole."""

import errno
import os
import struct
import threading
import time

import pytest
from rich.console import Console

from igrpo_jax.records import events, writer
from igrpo_jax.records.runlog import RunLog, read_metrics
from igrpo_jax.records.writer import Writer, append_whole, replace_whole


class Disk:
    """Stands for `os.write`: writes half of what it gets, and nothing once it is full."""

    def __init__(self):
        self.full, self.write = False, os.write

    def __call__(self, file, data):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.write(file, data[: max(1, len(data) // 2)])


@pytest.fixture
def disk(monkeypatch):
    made = Disk()
    monkeypatch.setattr(writer.os, "write", made)
    return made


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_portion_is_appended_whole_or_not_at_all(tmp_path, disk, monkeypatch):
    path = tmp_path / "file"
    append_whole(path, b"first\n")

    def half_then_full(file, data):
        disk.full, done = True, disk(file, data)
        return done

    disk.full = False
    monkeypatch.setattr(
        writer.os, "write", lambda file, data: half_then_full(file, data) if not disk.full else disk(file, data)
    )
    with pytest.raises(OSError, match="No space"):
        append_whole(path, b"second\n")
    assert path.read_bytes() == b"first\n"


def test_a_full_disk_does_not_hold_up_the_run_and_nothing_is_lost_when_there_is_room(tmp_path, disk):
    said = []
    one = Writer(said.append, retry=0.05)
    path = tmp_path / "file"
    one.append({path: b"0\n"})
    disk.full = True
    started = time.monotonic()
    for number in range(1, 2000):
        one.append({path: f"{number}\n".encode()})
    assert time.monotonic() - started < 60  # each of 2,000 portions would wait a second
    wait_for(lambda: said)
    assert said == [
        f"warning: {path} cannot be written (No space left on device); the run goes on, and keeps up to 64 MiB of "
        "records until there is room"
    ]
    disk.full = False
    wait_for(lambda: len(said) > 1)
    one.close()
    assert said[1:] == ["records are written again"]
    assert path.read_text() == "".join(f"{number}\n" for number in range(2000))


def test_what_goes_beyond_the_bound_is_counted(tmp_path, disk):
    said = []
    one, path = Writer(said.append, bound=100, retry=0.05), tmp_path / "file"
    disk.full = True
    for _ in range(30):
        one.append({path: b"x" * 9 + b"\n"})
    disk.full = False
    wait_for(lambda: len(said) > 1)
    assert said[1] == "records are written again; 20 were lost" and path.read_text() == ("x" * 9 + "\n") * 10
    disk.full = True
    one.append({path: b"y\n"})
    one.close(seconds=0.2)
    assert said[-1] == "warning: 1 records could not be written and are lost" and b"y" not in path.read_bytes()


def test_a_write_that_never_returns_holds_up_the_run_once_for_a_moment(tmp_path, monkeypatch):
    over, append, said = threading.Event(), writer.append_whole, []
    monkeypatch.setattr(writer, "append_whole", lambda path, data: (over.wait(600), append(path, data)))
    one, path, started = Writer(said.append), tmp_path / "file", time.monotonic()
    for _ in range(100):
        one.append({path: b"x"})
    assert time.monotonic() - started < 30  # each of 100 would wait a second, the first one ten minutes
    assert said == [
        f"warning: {path} is not written within 1 s; the run goes on, and keeps up to 64 MiB of records until there is "
        "room"
    ]
    over.set()
    one.close(seconds=60.0)
    assert said[1:] == ["records are written again"] and path.read_bytes() == b"x" * 100


def test_a_run_whose_disk_is_full_has_all_records_in_the_end(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(writer.Writer.__init__, "__kwdefaults__", {"bound": writer.BOUND, "retry": 0.05})
    log = RunLog(tmp_path, steps=9, completed=0, console=Console(record=True, width=300, force_terminal=False))
    for step in range(1, 10):
        disk.full = 3 <= step < 8
        log.metrics(step, {"reward": step / 2, "eval/x/avg@1": 0.5})
        log.samples(step, [{"question": "\ud800 half"}])
        assert log.evaluated(step)
    log.close()
    assert [record["step"] for record in read_metrics(tmp_path)] == list(range(1, 10))
    assert (tmp_path / "samples.jsonl").read_text().count("\\ud800 half") == 9
    text = log.console.export_text()
    assert "cannot be written (No space left on device); the run goes on" in text
    assert scalars_of(next((tmp_path / "tensorboard").iterdir()))["reward"] == {s: s / 2 for s in range(1, 10)}


def scalars_of(path):
    """Values by name and step of an event file, its frames read as TensorFlow writes them."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data, found = path.read_bytes(), {}
    while data:
        (size,), (check,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        body, (after,) = data[12 : 12 + size], struct.unpack("<I", data[12 + size : 16 + size])
        assert check == masked_crc32c(data[:8]) and after == masked_crc32c(body)
        event = Event.FromString(body)
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
        data = data[16 + size :]
    return found


def test_events_begin_like_those_of_tensorboard():
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    data = events.beginning(7)
    (size,) = struct.unpack("<Q", data[:8])
    first, second = Event.FromString(data[12 : 12 + size]), Event.FromString(data[16 + size + 12 : -4])
    assert first.file_version == "brain.Event:2"
    assert (second.step, second.session_log.status) == (7, SessionLog.START)


def test_a_file_is_replaced_whole_or_stays(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_whole(path, b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace_whole(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]
