"""What is read out of checkpoints, and what reading leaves alone."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igrpo_jax.learning.learner import TrainState
from igrpo_jax.records import checksums
from igrpo_jax.records.checkpoint import Checkpoints

STATE = TrainState({"a": jnp.arange(4.0), "b": jnp.ones((2, 3))}, ({"mu": jnp.full(4, 0.5)}, None))


def placed(state):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 2 and 4, and one that is being written."""
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    for step in (2, 4):
        checkpoints.save(step, jax.tree.map(lambda x, step=step: x + step, STATE))
    checkpoints.close()
    (tmp_path / "run" / "6.orbax-checkpoint-tmp").mkdir()
    return tmp_path / "run"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_whole_state_or_the_parameters_alone_come_back(folder):
    checkpoints = Checkpoints(folder, keep=None)
    assert checkpoints.latest() == 4
    state = checkpoints.restore(2, placed(STATE))
    assert jax.tree.structure(state) == jax.tree.structure(STATE)
    for mine, other in zip(jax.tree.leaves(state), jax.tree.leaves(STATE), strict=True):
        np.testing.assert_array_equal(mine, other + 2)
    params = checkpoints.restore_params(4, placed(STATE))
    np.testing.assert_array_equal(params["a"], STATE.params["a"] + 4)
    checkpoints.close()


def test_a_resumed_run_saves_on(folder):
    checkpoints = Checkpoints(folder, keep=2)
    checkpoints.save(5, checkpoints.restore(4, placed(STATE)))
    checkpoints.close()
    assert {"4", "5"} <= {*names(folder)} and "2" not in names(folder)


def test_reading_removes_nothing_and_creates_nothing(folder, tmp_path):
    before = names(folder)
    Checkpoints(folder, keep=None).close()
    assert names(folder) == before == ["2", "4", "6.orbax-checkpoint-tmp"]
    nothing = Checkpoints(tmp_path / "none", keep=None)
    assert nothing.latest() is None and not (tmp_path / "none").exists()
    nothing.close()


@pytest.mark.parametrize("part", ["restore", "restore_params"])
@pytest.mark.parametrize("params", [{"a": jnp.zeros(4)}, STATE.params | {"c": jnp.zeros(4)}])
def test_another_policy_is_refused(params, part, folder):
    checkpoints = Checkpoints(folder, keep=None)
    with pytest.raises(ValueError, match=r"checkpoint 4 in .* does not hold this policy"):
        getattr(checkpoints, part)(4, placed(STATE._replace(params=params)))
    checkpoints.close()


def files_of(step):
    """The files of a checkpoint that hold or describe arrays."""
    return sorted(
        file for file in (step / "default").rglob("*") if file.is_file() and file.name != "commit_success.txt"
    )


def flip(file, place=-1):
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def test_one_flipped_bit_of_any_file_is_noticed_and_the_checkpoint_before_is_used(folder):
    said = []
    places = [file.relative_to(folder) for file in files_of(folder / "4")]
    assert len(places) >= 8
    for place in places:
        flip(folder / place)
        checkpoints = Checkpoints(folder, keep=None, say=said.append)
        assert checkpoints.latest() == 2
        checkpoints.close()
        flip(folder / place)
    assert len(said) == len(places) and all(line.startswith("checkpoint 4 in ") for line in said)
    assert all(line.endswith("); the one before is used") and "\n" not in line for line in said)
    checkpoints = Checkpoints(folder, keep=None, say=said.append)
    assert checkpoints.latest() == 4 and len(said) == len(places)
    checkpoints.close()


@pytest.mark.parametrize("harm", ["cut", "gone", "a folder", "without checksums"])
def test_a_half_written_checkpoint_is_noticed(harm, folder):
    file = next(file for file in files_of(folder / "4") if "/d/" in str(file))
    match harm:
        case "cut":
            file.write_bytes(file.read_bytes()[:-1])
        case "gone":
            file.unlink()
        case "a folder":
            file.unlink()
            file.mkdir()
        case _:
            (folder / "4" / "default" / "checksums.json").unlink()
    said = []
    checkpoints = Checkpoints(folder, keep=None, say=said.append)
    assert checkpoints.latest() == 2 and len(said) == 1
    checkpoints.close()


def test_a_run_moves_a_damaged_checkpoint_aside_and_makes_it_again(folder, capsys):
    flip(files_of(folder / "4")[0])
    reader = Checkpoints(folder, keep=None)
    assert reader.latest() == 2 and "4" in names(folder)
    reader.close()
    checkpoints = Checkpoints(folder, keep=2)
    assert checkpoints.latest() == 2 and "checkpoint 4 in" in capsys.readouterr().err
    checkpoints.save(4, checkpoints.restore(2, placed(STATE)))
    checkpoints.close()
    again = Checkpoints(folder, keep=2)
    assert again.latest() == 4 and names(folder) == ["2", "4", "4.damaged"]
    again.close()


def test_only_if_none_is_whole_the_run_stops(folder):
    for step in ("2", "4"):
        flip(files_of(folder / step)[0])
    for keep in (None, 2):
        checkpoints = Checkpoints(folder, keep=keep, say=str)
        with pytest.raises(ValueError, match=r"no checkpoint in .* is whole \(newest: 4, .* has another checksum\)"):
            checkpoints.latest()
        checkpoints.close()
    assert [name for name in names(folder) if not name.endswith("-tmp")] == ["2", "4"]  # neither is moved aside


def test_checkpoints_of_an_older_version_have_no_checksums_and_are_used_with_a_line(folder):
    for step in ("2", "4"):
        (folder / step / "default" / "checksums.json").unlink()
    said = []
    checkpoints = Checkpoints(folder, keep=None, say=said.append)
    assert checkpoints.latest() == 4 and "has no checksums" in said[0]
    np.testing.assert_array_equal(checkpoints.restore_params(4, placed(STATE))["a"], STATE.params["a"] + 4)
    checkpoints.close()
    (folder / "4" / "default" / "_METADATA").write_text("{")
    checkpoints = Checkpoints(folder, keep=None, say=said.append)
    assert checkpoints.latest() == 2 and "checkpoint 4" in said[1] and "checkpoint 2" in said[2] and len(said) == 3
    checkpoints.close()


def test_a_failed_save_is_said_at_once_and_the_next_one_is_tried(folder, monkeypatch, capfd):
    def no_room(folder):
        raise OSError(28, "No space left on device")

    said = []
    checkpoints = Checkpoints(folder, keep=2, say=said.append)
    monkeypatch.setattr(checksums, "write_checksums", no_room)
    for step in (6, 8):
        checkpoints.save(step, STATE)
        checkpoints._watcher.join(20)
        assert said.pop() == (
            f"step {step} could not be saved ([Errno 28] No space left on device); what was saved before stays, and "
            "the next save tries again"
        )
    assert checkpoints.latest() == 4 and {"2", "4"} <= {*names(folder)} and checkpoints.unsaved
    monkeypatch.undo()
    checkpoints.save(9, STATE)
    checkpoints.close()
    assert not said and not checkpoints.unsaved and names(folder) == ["4", "9"]
    assert "Traceback" not in capfd.readouterr().err
    again = Checkpoints(folder, keep=2, say=said.append)
    assert again.latest() == 9 and not said
    again.close()


def test_a_last_save_that_failed_is_tried_once_more_at_the_end(folder, monkeypatch):
    calls, write = [], checksums.write_checksums

    def first_no_room(folder):
        calls.append(folder)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        write(folder)

    monkeypatch.setattr(checksums, "write_checksums", first_no_room)
    said = []
    checkpoints = Checkpoints(folder, keep=2, say=said.append)
    checkpoints.save(6, STATE)
    checkpoints.close()
    assert len(said) == 1 and not checkpoints.unsaved and names(folder) == ["4", "6"]


def test_a_last_save_that_fails_twice_is_given_up_and_every_process_learns_why(folder, monkeypatch):
    def no_room(folder):
        raise OSError(28, "No space left on device")

    elsewhere = [None]
    divide = lambda name, work, items: [*work(items), *(elsewhere if name == "unsaved" else [])]
    said = []
    checkpoints = Checkpoints(folder, keep=2, divide=divide, say=said.append)
    monkeypatch.setattr(checksums, "write_checksums", no_room)
    checkpoints.save(6, STATE)
    failure = checkpoints.finish()
    checkpoints.close()
    assert failure == checkpoints.unsaved == "step 6 could not be saved ([Errno 28] No space left on device)"
    assert len(said) == 2 and names(folder) == ["2", "4"]
    monkeypatch.undo()
    again = Checkpoints(folder, keep=2, divide=divide, say=said.append)
    again.save(6, STATE)
    assert again.finish() is None
    elsewhere[0] = "step 8 could not be saved (another process's disk)"
    assert again.finish() == again.unsaved == elsewhere[0]
    again.close()


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "default/_METADATA", "default/checksums.json"])
def test_a_pipe_in_a_checkpoint_is_refused(name, folder):
    (folder / "4" / name).unlink()
    os.mkfifo(folder / "4" / name)
    with pytest.raises(ValueError, match=rf"4/{name} is no plain file; move it away"):
        Checkpoints(folder, keep=None)


def test_what_lies_beside_the_state_is_saved_and_checked_with_it(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    checkpoints.beside = lambda step: {"notes.json": f"[{step}]".encode()}
    for step in (2, 4):
        checkpoints.save(step, STATE)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    assert checkpoints.latest() == 4
    assert [checkpoints.read_beside(step, "notes.json") for step in (2, 4)] == [b"[2]", b"[4]"]
    assert checkpoints.read_beside(4, "others.json") is None
    np.testing.assert_array_equal(checkpoints.restore(4, placed(STATE)).params["a"], STATE.params["a"])
    checkpoints.close()
    (tmp_path / "run" / "4" / "default" / "notes.json").write_bytes(b"[5]")
    checkpoints = Checkpoints(tmp_path / "run", keep=2)
    assert checkpoints.latest() == 2 and "notes.json has another checksum" in capsys.readouterr().err
    checkpoints.close()


def test_a_save_that_is_tried_again_has_what_lay_beside_the_state_at_first(tmp_path, monkeypatch, capsys):
    checkpoints, notes = Checkpoints(tmp_path / "run", keep=2), {2: b"[2]"}
    checkpoints.beside = lambda step: {"notes.json": notes.pop(step)}
    with monkeypatch.context() as patch:

        def full(folder):
            raise OSError(28, "No space left on device")

        patch.setattr(checksums, "write_checksums", full)
        checkpoints.save(2, STATE)
        checkpoints.wait()
    assert checkpoints.unsaved
    checkpoints.close()
    assert not checkpoints.unsaved and "could not be saved" in capsys.readouterr().err
    assert Checkpoints(tmp_path / "run", keep=None).read_beside(2, "notes.json") == b"[2]"
