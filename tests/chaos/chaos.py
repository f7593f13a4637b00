"""Kills runs of configs/smoke.py in all that they do, or tells them to leave, and looks what is lost: `make chaos`.

Every run is disturbed several times and started again each time, until it ends by itself. Then its export and its
records must be those of a run that nobody disturbed. Which signal comes in which phase, and how long after its begin,
follows from the seed; how far the run has come by then depends on the machine. Pairs of processes are struck once, in
their second update, and started again together.
"""

import argparse
import os
import random
import re
import select
import signal
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
from tests.runs import lasting, records, together

ROOT = Path(__file__).parents[2]
STEPS = 4
ARGUMENTS = ("--config", "smoke.py", "--train.steps", str(STEPS), "--train.save-every", "2")
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

    def __init__(self, workdir: Path, cache: Path, *more: str, devices: int = 1, mesh: str = "1x1", full: str = ":::"):
        self.mark = uuid.uuid4().hex
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        self._pipe, self._rest = ours, b""
        environment = os.environ | ALLOCATOR | {"IGRPO_CACHE": str(cache), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        places = ["--mesh", mesh, "--cpu-devices", str(devices), "--workdir", str(workdir)]
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py")), str(theirs), *ARGUMENTS, *places, *more],
            cwd=ROOT, env=environment | {MARK: self.mark, "IGRPO_CHAOS_FULL": full}, start_new_session=True,
            stdout=self._output, stderr=subprocess.STDOUT, pass_fds=(theirs,),
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
        if self.process.poll() is not None:
            return self.ends()
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


def differences(workdir: Path, alone: Path) -> list[str]:
    """What a run has written otherwise than the undisturbed one."""
    names = ("export/model.safetensors", "export/config.json", "samples.jsonl", "eval.jsonl")
    names += tuple(f"generations/{path.name}" for path in sorted((alone / "generations").iterdir()))
    wrong = [name for name in names if (workdir / name).read_bytes() != (alone / name).read_bytes()]
    ours, theirs = ([lasting(record) for record in records(run)] for run in (workdir, alone))
    return wrong + ["metrics.jsonl"] * (ours != theirs)


def check(blow: Blow, outcome: Outcome) -> None:
    """Whether the run ended as it must after a blow.

    Raises:
      AssertionError: it did not.
    """
    if outcome.seconds is None:
        assert outcome.status == 0, (blow, outcome)
    elif blow.signal not in POLITE:
        assert outcome.status == -blow.signal, (blow, outcome)
    else:
        # Only a run that has made its last step may end before it hears the signal.
        over = re.search(rf"step {STEPS}\b", outcome.output) is not None
        assert outcome.status == RESUME or (over and outcome.status == 0), (blow, outcome)
        # Its promise is the grace, and a busy machine gets as much again to notice.
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
        if outcome.status == 0:
            ends_well(outcome, folder / str(number), alone)
            number += 1
    ends_well(Child(folder / str(number), cache).ends(), folder / str(number), alone)
    return told


def ends_well(outcome: Outcome, workdir: Path, alone: Path) -> None:
    """Whether a run has ended by itself with what the undisturbed one has.

    Raises:
      AssertionError: it has not.
    """
    assert outcome.status == 0, outcome
    assert not differences(workdir, alone), differences(workdir, alone)


def pair(workdir: Path, cache: Path, *more: str) -> list[Child]:
    """Two processes of four devices each that train together."""
    return [Child(workdir, cache, *more, *arguments, devices=4, mesh="8x1") for arguments in together()]


def strike_pair(number: signal.Signals, victim: int, workdir: Path, cache: Path) -> list[Outcome]:
    """Two processes of which one is struck in its second update; both must have left as promised.

    One that is told finds no checkpoint of the regular ones: only what both save before they leave can be resumed from.

    Raises:
      AssertionError: one has not.
    """
    blow = Blow(number, "update", 2)
    polite = number in POLITE
    both = pair(workdir, cache, "--train.save-every", str(STEPS) if polite else "1")
    reached = both[victim].reaches(blow.phase, blow.number)
    since = time.monotonic()
    if reached:
        both[victim].process.send_signal(number)
    outcomes = [child.ends(since) for child in both]
    assert reached, f"no run comes to {blow}: {[outcome.output for outcome in outcomes]}"
    for index, outcome in enumerate(outcomes):
        killed = index == victim and not polite
        assert outcome.status == (-number if killed else RESUME), (blow, victim, index, outcome)
        assert (outcome.seconds or 0) < 2 * GRACE, (blow, victim, index, outcome)
    saved = [re.findall(r"saved after step (\d+)\n", outcome.output) for outcome in outcomes]
    if polite:
        assert saved[0] == saved[1] and saved[0] in (["1"], ["2"], ["3"]), (blow, victim, outcomes)
        assert (workdir / "checkpoints" / saved[0][0]).is_dir(), (blow, victim, outcomes)
    else:
        assert "another process of this run has ended" in outcomes[1 - victim].output, (blow, victim, outcomes)
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
    told = []
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
            kind, victim = (signal.SIGTERM, signal.SIGKILL)[number % 2], number // 2 % 2
            outcomes = strike_pair(kind, victim, workdir, cache)
            assert [child.ends().status for child in pair(workdir, cache)] == [0, 0]
            assert not differences(workdir, both), differences(workdir, both)
            slowest = max(outcome.seconds or 0 for outcome in outcomes)
            print(f"pair {number}: {kind.name} to process {victim}, both left in {slowest:.0f} s", flush=True)
    for (phase, name), count in sorted(Counter((blow.phase, blow.signal.name) for blow, _ in told).items()):
        longest = max(outcome.seconds for blow, outcome in told if (blow.phase, blow.signal.name) == (phase, name))
        print(f"{phase:<11} {name:<8} {count:>3}   gone after {longest:.1f} s at most")
    print(
        f"{len(told)} blows in {options.runs} runs, {options.pairs} pairs, seed {options.seed}: 0 bits lost, 0 orphans"
    )


if __name__ == "__main__":
    main()
