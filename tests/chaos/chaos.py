"""Kills runs of configs/smoke.py in all that they do, and looks whether anything is lost: `make chaos`.

Every run is disturbed several times and started again each time, until it ends by itself. Then its export and its
records must be those of a run that nobody disturbed. What is killed, and when, follows from the seed; how far a run has
come by then depends on the machine.
"""

import argparse
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from igrpo_jax.edges.preemption import GRACE, RESUME
from igrpo_jax.records.machine.allocator import ALLOCATOR
from tests.chaos.child import PHASES

ROOT = Path(__file__).parents[2]
ARGUMENTS = ("--config", "smoke.py", "--train.steps", "4", "--train.save-every", "2")
PATIENCE = 900
"""Seconds after which a run is said to hang, on a machine however busy."""

MARK = "IGRPO_CHAOS"
"""Environment variable by which a run's processes are known, orphans too."""

POLITE = (signal.SIGTERM, signal.SIGINT)


class Blow(NamedTuple):
    """What is done to a run: the signal, in which phase and the how manieth of its kind, and so many seconds later."""

    signal: signal.Signals
    phase: str
    number: int = 1
    delay: float = 0.0


class Outcome(NamedTuple):
    """How a run ended: its exit status, how long after the blow, None if it ended before, and what it printed."""

    status: int
    seconds: float | None
    output: str


class Child:
    """A run in a process of its own, whose phases can be waited for."""

    def __init__(self, workdir: Path, cache: Path, *more: str, devices: int = 1, mesh: str = "1x1"):
        self.mark = uuid.uuid4().hex
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        self._pipe, self._rest = ours, b""
        environment = os.environ | ALLOCATOR | {"IGRPO_CACHE": str(cache), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        places = ["--mesh", mesh, "--cpu-devices", str(devices), "--workdir", str(workdir)]
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py")), str(theirs), *ARGUMENTS, *places, *more],
            cwd=ROOT, env=environment | {MARK: self.mark}, stdout=self._output, stderr=subprocess.STDOUT,
            pass_fds=(theirs,), start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def reaches(self, phase: str, number: int = 1) -> bool:
        """Waits until a phase has begun so often; False if the run ends before."""
        until = time.monotonic() + PATIENCE
        while number and time.monotonic() < until:
            if b"\n" not in self._rest:
                ready, _, _ = select.select([self._pipe], [], [], 1.0)
                more = os.read(self._pipe, 4096) if ready else b""
                if ready and not more:
                    return False
                self._rest += more
                continue
            line, _, self._rest = self._rest.partition(b"\n")
            number -= line.decode() == phase
        assert not number, f"no {phase} within {PATIENCE} s"
        return True

    def ends(self, since: float | None = None) -> Outcome:
        """Waits for the end of the run, and checks that nothing of it is left."""
        status = self.process.wait(PATIENCE)
        seconds = None if since is None else time.monotonic() - since
        os.close(self._pipe)
        self._output.seek(0)
        output = self._output.read().decode(errors="replace")
        self._output.close()
        left = survivors(self.mark)
        assert not left, f"orphans: {left}"
        return Outcome(status, seconds, output)

    def struck(self, blow: Blow) -> Outcome:
        """Waits for the phase, sends the signal, and waits for the end."""
        if not self.reaches(blow.phase, blow.number):
            return self.ends()
        time.sleep(blow.delay)
        self.process.send_signal(blow.signal)
        return self.ends(time.monotonic())


def survivors(mark: str, patience: float = 60.0) -> list[str]:
    """Command lines of a run's processes that are still there after a while."""
    until = time.monotonic() + patience
    while (left := _marked(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def _marked(mark: str) -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def records(workdir: Path) -> list[dict]:
    """metrics.jsonl without what differs from run to run: times, memory, compilations."""
    fleeting = (
        "time/",
        "tokens_per_s/",
        "step_time",
        "memory/",
        "compile/",
        "sampling/row_",
        "train/padding_",
        "devices",
    )
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(fleeting)} for line in lines]


def differences(workdir: Path, alone: Path) -> list[str]:
    """What a run has written otherwise than the undisturbed one."""
    names = ("export/model.safetensors", "export/config.json", "samples.jsonl", "eval.jsonl")
    names += tuple(f"generations/{path.name}" for path in sorted((alone / "generations").iterdir()))
    wrong = [name for name in names if (workdir / name).read_bytes() != (alone / name).read_bytes()]
    return wrong + ["metrics.jsonl"] * (records(workdir) != records(alone))


def check(blow: Blow, outcome: Outcome) -> None:
    """Whether the run ended as it must after a blow.

    Raises:
      AssertionError: it did not.
    """
    if outcome.seconds is None or blow.signal not in POLITE:
        expected = (0,) if outcome.seconds is None else (-blow.signal, 0)
        assert outcome.status in expected, (blow, outcome)
        return
    # 0: the run was over; its promise is the grace, and a busy machine gets as much again to notice.
    assert outcome.status in (RESUME, 0), (blow, outcome)
    assert outcome.seconds < 2 * GRACE, (blow, outcome)
    assert "Traceback" not in outcome.output, (blow, outcome)


def blows(seed: int, runs: int, kills: int) -> list[list[Blow]]:
    """So many blows for each of so many runs; together they go through all phases, each signal too."""
    noise, made = random.Random(seed), []
    phases = [phase for phase in PHASES if phase != "claim"]
    times = lambda phase: noise.randint(1, 6 if phase in ("sampling", "grading") else 3 if phase == "update" else 1)
    kinds = [(number, phase) for phase in phases for number in (signal.SIGKILL, *POLITE)]
    noise.shuffle(kinds)
    for run in range(runs):
        chosen = [kinds[(run * kills + kill) % len(kinds)] for kill in range(kills)]
        made.append([Blow(number, phase, times(phase), noise.random() * 0.3) for number, phase in chosen])
    return made


def endure(some: list[Blow], folder: Path, cache: Path, alone: Path) -> list[tuple[Blow, Outcome]]:
    """Runs under these blows, each started again after each blow that hits it; no run may have lost anything.

    A run that ends before a blow's phase comes is over, and the blow hits the next one, which begins anew.
    """
    told, number = [], 0
    for blow in some:
        outcome = Child(folder / str(number), cache).struck(blow)
        if outcome.seconds is None:
            ends_well(outcome, folder / str(number), alone)
            number += 1
            outcome = Child(folder / str(number), cache).struck(blow)
        assert outcome.seconds is not None, f"no run comes to {blow}"
        check(blow, outcome)
        told.append((blow, outcome))
    ends_well(Child(folder / str(number), cache).ends(), folder / str(number), alone)
    return told


def ends_well(outcome: Outcome, workdir: Path, alone: Path) -> None:
    """Whether a run has ended by itself with what the undisturbed one has.

    Raises:
      AssertionError: it has not.
    """
    assert outcome.status == 0, outcome
    assert not differences(workdir, alone), differences(workdir, alone)


def pair(workdir: Path, cache: Path) -> list[Child]:
    """Two processes of four devices each that train together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = ["--coordinator", address, "--num-processes", "2", "--process-id"]
    return [Child(workdir, cache, *together, str(i), devices=4, mesh="8x1") for i in range(2)]


def strike_pair(blow: Blow, victim: int, workdir: Path, cache: Path) -> list[Outcome]:
    """Two processes of which one is struck; both must have left as promised."""
    both = pair(workdir, cache)
    assert both[victim].reaches(blow.phase, blow.number)
    time.sleep(blow.delay)
    since = time.monotonic()
    both[victim].process.send_signal(blow.signal)
    outcomes = [child.ends(since) for child in both]
    for index, outcome in enumerate(outcomes):
        killed = index == victim and blow.signal not in POLITE
        assert outcome.status == (-blow.signal if killed else RESUME), (blow, victim, index, outcome)
    return outcomes


def main() -> None:
    """Kills, prints what was killed and what was lost; an assertion names the first promise that was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=10, help="at least; more are begun where one ends before it is hit")
    parser.add_argument("--kills", type=int, default=6, help="of each run")
    parser.add_argument("--pairs", type=int, default=4, help="runs of two processes, of which one is told or killed")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children would ignore it
    noise, told = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        cache, alone = place / "cache", place / "alone"
        assert Child(alone, cache).ends().status == 0
        for number, some in enumerate(blows(options.seed, options.runs, options.kills)):
            told += endure(some, place / f"run{number}", cache, alone)
            print(f"run {number}: {len(some)} blows, nothing lost", flush=True)
        both = place / "both alone"
        for child in pair(both, cache):
            assert child.ends().status == 0
        for number in range(options.pairs):
            workdir = place / f"pair{number}"
            blow = Blow((signal.SIGTERM, signal.SIGKILL)[number % 2], noise.choice(["sampling", "update"]), 3)
            outcomes = strike_pair(blow, number // 2 % 2, workdir, cache)
            assert [child.ends().status for child in pair(workdir, cache)] == [0, 0]
            assert not differences(workdir, both), differences(workdir, both)
            slowest = max(outcome.seconds or 0 for outcome in outcomes)
            print(f"pair {number}: {blow.signal.name} to process {number // 2 % 2}, both left in {slowest:.0f} s")
    for (phase, name), count in sorted(Counter((blow.phase, blow.signal.name) for blow, _ in told).items()):
        longest = max(outcome.seconds for blow, outcome in told if (blow.phase, blow.signal.name) == (phase, name))
        print(f"{phase:<11} {name:<8} {count:>3}   gone after {longest:.1f} s at most")
    print(
        f"{len(told)} blows in {options.runs} runs, {options.pairs} pairs, seed {options.seed}: 0 bits lost, 0 orphans"
    )


if __name__ == "__main__":
    main()
