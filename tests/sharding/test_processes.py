"""How processes find each other and agree: errors that name the fix, and values that are everywhere the same."""

import socket
import subprocess
import sys
import threading
import time

import jax
import pytest

from sharding import processes
from sharding.processes import Processes, compare, connect, expected, reach


class Store:
    """The part of the coordinator's client that is used, between threads."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def key_value_set_bytes(self, key, value, overwrite=False):
        with self.changed:
            assert overwrite or key not in self.values
            self.values[key] = value
            self.changed.notify_all()

    def key_value_try_get_bytes(self, key):
        with self.changed:
            if key not in self.values:
                raise jax.errors.JaxRuntimeError("NOT_FOUND: nobody said it")
            return self.values[key]

    def blocking_key_value_get_bytes(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, milliseconds / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: nobody said it")
            return self.values[key]

    def key_value_delete(self, key):
        with self.changed:
            del self.values[key]


@pytest.fixture
def together(in_threads):
    """`together(count, action)`: what `action(processes)` gives or raises in each of them, and their store."""

    def run(count, action):
        store = Store()
        return in_threads(count, lambda index: action(Processes(index, count, store))), store

    return run


def test_everyone_hears_everyone_in_order_and_the_store_does_not_grow(together):
    results, store = together(3, lambda p: [p.share("scores", (p.index, turn)) for turn in range(20)])
    assert results == [[[(i, turn) for i in range(3)] for turn in range(20)]] * 3
    assert len(store.values) == 3


def test_the_first_process_decides(together):
    results, _ = together(3, lambda p: [p.agree(10 * p.index + turn) for turn in range(5)])
    assert results == [[0, 1, 2, 3, 4]] * 3


def test_agreements_are_deleted_once_all_have_heard_them(together, monkeypatch):
    monkeypatch.setattr(processes, "FORGET", 4)

    def decide(process):
        def one(turn):
            time.sleep(0.002 * process.index)  # the first process runs ahead
            return process.agree(10 * process.index + turn)

        return [one(turn) for turn in range(22)]

    results, store = together(3, decide)
    assert results == [list(range(22))] * 3
    assert sorted(key for key in store.values if "/agree/" in key) == [f"igrpo_jax/agree/{n}/0" for n in (21, 22)]
    assert len(store.values) == 2 + 3


def test_what_is_done_once_fails_everywhere(together):
    done = []

    def refuse():
        done.append(1)
        raise ValueError("the workdir cannot be written")

    results, _ = together(3, lambda p: p.once(refuse))
    assert [str(error) for error in results] == ["the workdir cannot be written"] * 3 and done == [1]


@pytest.mark.parametrize(("count", "size"), [(2, 7), (3, 12), (4, 2), (1, 3)])
def test_work_is_divided_and_its_results_are_everywhere(together, count, size):
    parts = [[] for _ in range(count)]

    def square(process):
        def work(items):
            assert len(items) > 0
            parts[process.index] += items
            return [item**2 for item in items]

        return [process.divide("squares", work, list(range(start, start + size))) for start in (0, 50)]

    results, _ = together(count, square)
    assert results == [[[i**2 for i in range(start, start + size)] for start in (0, 50)]] * count
    assert sorted(item for part in parts for item in part) == [*range(size), *range(50, 50 + size)]
    assert max(map(len, parts)) <= 2 * -(-size // count)


def test_an_error_in_one_part_is_raised_in_all(together):
    def lengths(items):
        if "bad" in items:
            raise TypeError("reward 'length' raised")
        return [len(item) for item in items]

    results, _ = together(3, lambda p: p.divide("lengths", lengths, ["a", "b", "c", "d", "bad", "f"]))
    assert [(type(error), str(error)) for error in results] == [(ValueError, "reward 'length' raised")] * 3


def test_processes_with_different_work_say_so(together):
    results, _ = together(2, lambda p: p.divide("problems", list, [0] * (3 + p.index)))
    assert "process 1 has 4 problems where process 0 has 3" in str(results[0]) and "same data" in str(results[0])
    assert "process 0 has 3 problems where process 1 has 4" in str(results[1])


def test_alone_nothing_is_asked():
    alone = Processes()
    assert (alone.first, alone.agree(3), alone.share("x", 4)) == (True, 3, [4])


def test_a_difference_is_named_in_every_process(together):
    results, _ = together(2, lambda p: compare(p, {"jax": "0.10.2", "--optim.learning_rate": [1e-6, 2e-6][p.index]}))
    assert all("process 1 has --optim.learning_rate 2e-06 and process 0 has 1e-06" in str(e) for e in results)
    assert all("same command" in str(e) for e in results)


def test_silence_ends_in_an_error_that_names_the_process(monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", 0.05)
    with pytest.raises(ValueError, match=r"process 1 of 2 has not answered .*start all processes again"):
        Processes(0, 2, Store()).share("scores", 1)


@pytest.mark.parametrize(
    "arguments", [("host:1", None, None), ("host:1", 0, None), ("", 0, 2), ("auto", 0, 2), ("", None, 2)]
)
def test_half_given_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="belong together"):
        connect(*arguments)


def test_a_process_id_must_exist():
    with pytest.raises(ValueError, match="--process-id 2 is not one of 0 to 1"):
        connect("127.0.0.1:1", 2, 2)


@pytest.mark.parametrize("address", ["somewhere", "host:", ":80", "host:http"])
def test_an_address_has_a_host_and_a_port(address):
    with pytest.raises(ValueError, match="is not host:port"):
        reach(address, 0)


def test_a_coordinator_that_is_not_there_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"--coordinator {address} cannot be reached within 0 s"):
            reach(address, 0)


def test_a_coordinator_that_comes_late_is_waited_for():
    server = socket.socket()
    server.bind(("127.0.0.1", 0))

    def listen():
        time.sleep(0.3)
        server.listen()

    thread = threading.Thread(target=listen)
    thread.start()
    reach(f"127.0.0.1:{server.getsockname()[1]}", 20)
    thread.join()
    server.close()


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, False),  # inside an allocation, but not started by srun
        ({"SLURM_STEP_NODELIST": "a", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_STEP_NODELIST": "a[1-2]", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"TPU_WORKER_HOSTNAMES": "one"}, False),
        ({"TPU_WORKER_HOSTNAMES": "one,two"}, True),
        ({"MEGASCALE_NUM_SLICES": "2"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, False),  # a job of one pod has it too
    ],
)
def test_the_environment_says_whether_there_are_others(environment, several):
    assert expected(environment) is several


ABORTED = """
import ctypes, sys, threading
from sharding.processes import end_clearly
end_clearly(75)
library = ctypes.CDLL(None)
if sys.argv[1] == "runtime":
    number, entry = ctypes.c_ulong(), ctypes.cast(library.abort, ctypes.c_void_p)
    library.pthread_create(ctypes.byref(number), None, entry, None)  # as JAX's, a thread without a line of Python
    threading.Event().wait(60)
elif sys.argv[1] == "thread":
    threading.Thread(target=library.abort).start()
    threading.Event().wait(60)
library.abort()
"""


@pytest.mark.parametrize(("where", "status"), [("runtime", 75), ("thread", -6), ("main", -6)])
def test_only_an_abort_of_the_runtime_itself_is_taken_for_the_end_of_another_process(where, status):
    done = subprocess.run([sys.executable, "-c", ABORTED, where], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert ("another process of this run has ended" in done.stderr) == (status == 75)
