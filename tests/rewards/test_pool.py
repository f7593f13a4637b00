"""Items run in processes that can be killed, and one bad item does not harm another."""

import operator
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from igrpo_jax.rewards import GraderPool, Verdict
from igrpo_jax.rewards.compare import compare_symbolic
from igrpo_jax.rewards.workers import pool as pool_module
from tests.rewards import jobs

ROOT = Path(__file__).parents[2]


def reasons(results):
    return [result.reason if isinstance(result, Verdict) else result for result in results]


def below_a_killed_trainer(action: str) -> list[int]:
    """Process ids that a trainer prints, whose pool is busy for ten minutes when it is killed."""
    code = (
        "import os, time\nfrom igrpo_jax.rewards import GraderPool\nfrom tests.hostile import jobs\n"
        f"pool = GraderPool(1, 600.0, 256)\nprint(*pool.map({action}, [()]), flush=True)\n"
        "pool.map(time.sleep, [(600,)])\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert trainer.stdout is not None
    with trainer.stdout as lines:
        below = [int(pid) for pid in re.findall(r"\d+", lines.readline())]
    trainer.kill()
    trainer.wait()
    return below


def gone(pid):
    """Whether a process ends within ten seconds."""
    for _ in range(200):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_results_come_in_order(bare_pool):
    assert bare_pool.map(operator.mul, [(i, i) for i in range(50)]) == [i * i for i in range(50)]
    assert bare_pool.map(operator.mul, []) == []


def test_workers_are_bare_processes(bare_pool):
    names = ["jax", "jaxlib", "igrpo_jax.types", "tests.rewards.conftest", "igrpo_jax.rewards"]
    assert bare_pool.map(jobs.loaded, [(name,) for name in names]) == [False] * 4 + [True]
    assert bare_pool.map(jobs.main_module, [()]) == ["igrpo_jax.rewards.workers.worker"]
    assert bare_pool.map(jobs.ignores_interrupts, [()]) == [True]
    assert len(set(bare_pool.map(hash, [("text",)] * 8))) == 1
    assert set(bare_pool.map(jobs.above_the_guard, [()] * 4)) == {os.getpid()}


def test_overrunning_item_times_out_alone(pool):
    assert reasons(pool.map(time.sleep, [(30,), (0,), (0,)])) == ["timeout", None, None]


def test_answers_are_compared_in_other_processes(pool):
    items = [(r"9^{9^{9^9}}", "3"), (r"\sqrt{4}", "2"), ("x+x", "2x"), ("x", "2x")]
    results = pool.map(compare_symbolic, items)
    assert reasons(results) == ["too_large", "symbolic", "symbolic", "unequal"]
    assert results[0] == 0.0 and results[1].parsed == r"\sqrt{4}"
    assert reasons(pool.map(compare_symbolic, items[1:])) == ["symbolic", "symbolic", "unequal"]


def test_dying_item_fails_alone(bare_pool):
    exited, killed = bare_pool.map(os._exit, [(3,)]) + bare_pool.map(signal.raise_signal, [(signal.SIGKILL,)])
    assert (exited.reason, exited.message) == ("error", "the grader process died (exit status 3)")
    assert (killed.reason, killed.message) == ("error", "the grader process died (SIGKILL)")
    assert bare_pool.map(operator.add, [(1, 2)] * 3) == [3] * 3


def test_raising_item_says_why(bare_pool):
    failed, exited, fine = (
        bare_pool.map(operator.truediv, [(1, 0)]) + bare_pool.map(sys.exit, [(2,)]) + bare_pool.map(abs, [(-1,)])
    )
    assert (failed.reason, failed.message) == ("error", "ZeroDivisionError: division by zero")
    assert (exited.reason, exited.message) == ("error", "SystemExit: 2")
    assert fine == 1


def test_result_that_cannot_travel_is_an_error(bare_pool):
    (verdict,) = bare_pool.map(threading.Lock, [()])
    assert verdict.reason == "error" and "not JSON serializable" in verdict.message
    (verdict,) = bare_pool.map(operator.mul, [("x", 2**25)])
    assert (verdict.reason, verdict.message[-26:]) == ("error", " bytes, more than 16777216")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the limit")
def test_memory_hog_fails_alone(bare_pool):
    hogs = bare_pool.map(operator.mul, [([0], 2**30), ([0], 3)])
    assert reasons(hogs) == ["memory", [0, 0, 0]]
    assert bare_pool.map(jobs.uses_memory, [(2**26,)]) == [2**26]


def test_any_thread_may_call(bare_pool):
    results = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: results.append(bare_pool.map(operator.neg, [(1,), (2,)])))
        thread.start()
        thread.join()
    assert results == [[-1, -2]] * 2
    assert bare_pool.map(operator.neg, [(3,)]) == [-3]


def test_waits_without_polling(monkeypatch):
    waits = []
    real = pool_module.wait
    with GraderPool(1, 5.0, 256) as pool:
        pool.map(abs, [(1,)])
        monkeypatch.setattr(pool_module, "wait", lambda *args: waits.append(args) or real(*args))
        assert pool.map(time.sleep, [(0.5,)]) == [None]
    assert len(waits) == 2  # importing `time`, and the item


def test_interrupted_call_leaves_nothing_behind(bare_pool, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool_module, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            bare_pool.map(operator.add, [(1, 1), (2, 2)])
    assert bare_pool.map(operator.add, [(3, 3), (4, 4)]) == [6, 8]


def test_idle_death_is_no_items_fault(bare_pool):
    for pid in set(bare_pool.map(os.getpid, [()] * 20)):
        os.kill(pid, signal.SIGKILL)
    assert bare_pool.map(operator.add, [(1, 2)] * 3) == [3] * 3


def test_preparation_is_outside_the_deadline():
    with GraderPool(1, 0.5, 256) as pool:
        pool.prepare(time.sleep, 0.7)
        assert pool.map(operator.add, [(1, 2), (3, 4)]) == [3, 7]
        pool.prepare(time.sleep, 0.6)  # also for a process that runs already
        assert reasons(pool.map(time.sleep, [(0,), (30,), (0,)])) == [None, "timeout", None]


def test_failed_preparation_is_told():
    with GraderPool(1, 5.0, 256) as pool:
        pool.prepare(operator.truediv, 1, 0)
        with pytest.raises(ValueError, match="a grader process failed in truediv: ZeroDivisionError"):
            pool.map(abs, [(1,)])
    with GraderPool(1, 5.0, 256) as pool:
        pool.prepare(os._exit, 4)
        with pytest.raises(ValueError, match="exit status 4"):
            pool.map(abs, [(1,)])


def test_functions_of_the_main_script_are_refused(bare_pool):
    with pytest.raises(ValueError, match="move it to the top level of a module"):
        bare_pool.map(lambda x: x, [(1,)])


@pytest.mark.parametrize("numbers", [(0, 1.0, 1), (1, 0.0, 1), (1, 1.0, -1)])
def test_sizes_are_checked(numbers):
    with pytest.raises(ValueError, match="give a number above 0"):
        GraderPool(*numbers)


def test_closing_ends_the_processes():
    pool = GraderPool(1, 5.0, 256)
    (pid,) = pool.map(os.getpid, [()])
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_busy_workers_end_with_a_killed_parent():
    (worker,) = below_a_killed_trainer("os.getpid")
    assert gone(worker)
