"""Compares: runs the arms of a study with each of its seeds, and puts them side by side."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config, to_dict
from igrpo_jax.edges.preemption import Preempted, Stop
from igrpo_jax.study.config import Study
from jobs.arguments import Launch
from jobs.report import report_on

ROOT = Path(__file__).parents[1]

POLL = 0.2
"""Seconds between two looks at the runs."""


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Runs what is not finished, one after another or `--parallel` at once; writes and shows the comparison.

    Raises:
      ValueError: the study cannot be meant, the directory is another's, or runs have failed.
      Preempted: told to leave before all was done; the same command goes on.
    """
    from igrpo_jax.records.lease import lease
    from igrpo_jax.study.config import arms_named, check_study
    from igrpo_jax.study.processes import Children, places
    from igrpo_jax.study.runs import Root

    if launch.coordinator or launch.num_processes or launch.process_id is not None:
        raise ValueError("--job compare starts each run by itself; leave --coordinator, --num-processes, --process-id")
    study, path = read_study(launch, config)
    if not launch.workdir:
        workdir = ROOT / "runs" / "studies" / path.stem
    configs = check_study(study)
    arms, shares = arms_named(study, launch.arms), places(launch.parallel)
    with lease(workdir, say=print):
        root = Root(workdir, path.stem, study, configs, study.seeds)
        children = Children(shares)
        runs = [run for run in root.status if run.arm in arms and run.seed in study.seeds]
        with children.hearing():
            Scheduler(launch, path, study, configs, root, children).run(runs)
            told = children.told
        if told and any(root.status[run] not in ("finished", "failed") for run in runs):
            write_comparison(study, root, configs)  # tables and a report would take time that there is not
            print(f"{told}: all runs have left; the same command goes on")
            raise Preempted(told)
        finish(study, root, configs)
    failed = [run for run, status in root.status.items() if status == "failed"]
    if failed:
        log = workdir / failed[0].workdir.with_suffix(".log")
        raise ValueError(f"{counted(failed)} failed ({'; '.join(map(str, failed))}): {log} says {last_line(log)!r}")


def read_study(launch: Launch, config: Config) -> tuple[Study, Path]:
    """The study of the config file, with what the command line says of it, and the file."""
    from igrpo_jax.edges.user_code import find_config, made_by, run_file

    path = find_config(launch.config, ROOT / "configs")
    study = made_by(run_file(path), path, "get_study", Study)
    seeds = study.seeds if launch.seeds is None else launch.seeds
    return replace(study, config=config, seeds=seeds), path


class Scheduler:
    """Starts what is ready while there is room, until nothing is left to run."""

    def __init__(
        self, launch: Launch, path: Path, study: Study, configs: Mapping[str, Config], root: Any, children: Any
    ):
        """Everything it needs is handed to it."""
        self.launch, self.beside, self.study, self.configs = launch, str(path.absolute().parent), study, configs
        self.root, self.children = root, children
        hours = launch.max_hours * 3600
        self.until = time.monotonic() + (max(hours - launch.grace, 0.0) if hours else math.inf)

    def run(self, runs: Sequence[Any]) -> None:
        """Runs what of these is not finished; the baseline comes first of each seed."""
        first = lambda run: (self.root.seeds.index(run.seed), run.arm != self.study.baseline)
        left = sorted((run for run in runs if self.root.status[run] != "finished"), key=first)
        done = len(runs) - len(left)
        print(f"{counted(runs)}, {done} of them finished; equal {self.study.budget.replace('_', ' ')}", flush=True)
        waited: set[Any] = set()
        while left or self.children.running:
            if time.monotonic() >= self.until and not self.children.told:
                self.children.leave("the time that --max-hours allows is over")
            for run in [run for run in left if self.ready(run, waited)]:
                if self.children.room:
                    left.remove(run)
                    self.start(run)
            for run, status in self.children.ended():
                self.ended(run, status)
            if not self.children.running and (self.children.told or not any(map(self.may_come, left))):
                return
            time.sleep(POLL)

    def ready(self, run: Any, waited: set[Any]) -> bool:
        """Whether its budget is known, and nobody else is writing there."""
        from igrpo_jax.records.lease import held

        if not self.budgeted(run):
            return False
        if held(self.root.directory / run.workdir):
            if run not in waited:
                print(f"{run}: a process is writing there already; waiting for its end")
                waited.add(run)
            return False
        return True

    def may_come(self, run: Any) -> bool:
        """Whether a run can still be started, now or later."""
        from igrpo_jax.study.runs import Run

        return self.budgeted(run) or self.root.status[Run(self.study.baseline, run.seed)] != "failed"

    def budgeted(self, run: Any) -> bool:
        """Whether it is known how much the run may spend: what is measured, the baseline must have spent before."""
        from igrpo_jax.study.budget import is_measured
        from igrpo_jax.study.runs import Run

        base = Run(self.study.baseline, run.seed)
        return run == base or not is_measured(self.study.budget) or self.root.status[base] == "finished"

    def start(self, run: Any) -> None:
        """Starts a run, with its config in a file beside its directory."""
        from igrpo_jax.study.runs import write_json

        workdir = self.root.directory / run.workdir
        written, log = workdir.with_suffix(".json"), workdir.with_suffix(".log")
        written.parent.mkdir(parents=True, exist_ok=True)
        write_json(written, {"config": to_dict(self.config_of(run)), "beside": self.beside})
        options = ["--config", str(written), "--workdir", str(workdir), "--grace", str(self.launch.grace)]
        options += ["--train.no-report"]  # there is one of the study
        if self.launch.mesh:
            options += ["--mesh", self.launch.mesh]
        if self.launch.cpu_devices:
            options += ["--cpu-devices", str(self.launch.cpu_devices)]
        self.children.start(run, [str(ROOT / "launch.py"), *options], log)
        again = "goes on" if self.root.status[run] == "left" else "started"
        self.root.mark(run, "running")
        print(f"{run}: {again}, {log} has what it says", flush=True)

    def config_of(self, run: Any) -> Config:
        """A run's config: the arm's, with its seed and what it may spend."""
        from igrpo_jax.learning.spending import spent
        from igrpo_jax.records.lines import read_records
        from igrpo_jax.study.budget import is_measured, limited
        from igrpo_jax.study.runs import Run

        config = replace(self.configs[run.arm], seed=run.seed)
        if not is_measured(self.study.budget) or run.arm == self.study.baseline:
            return config
        base = self.root.directory / Run(self.study.baseline, run.seed).workdir
        taken = spent(read_records(base / "metrics.jsonl"), self.configs[self.study.baseline])
        return limited(config, self.study.budget, taken[self.study.budget])

    def ended(self, run: Any, status: int) -> None:
        """Marks how a run has ended, and says so; one that was told to leave takes the others with it."""
        from igrpo_jax.edges.preemption import RESUME

        if status == 0:
            self.root.mark(run, "finished")
            count = sum(status == "finished" for status in self.root.status.values())
            print(f"{run}: finished, {count} of {len(self.root.status)}", flush=True)
            write_comparison(self.study, self.root, self.configs)
        elif status == RESUME or self.children.told:
            self.root.mark(run, "left")
            self.children.leave(f"{run} was told to leave")
        else:
            self.root.mark(run, "failed")
            log = self.root.directory / run.workdir.with_suffix(".log")
            print(f"{run}: failed with exit status {status}: {last_line(log)}", flush=True)


def write_comparison(study: Study, root: Any, configs: Mapping[str, Config], say: Callable[[str], None] | None = None):
    """Compares the runs that are finished; comparison.json and comparison.md in the study's directory."""
    from igrpo_jax.records.writer import replace_whole
    from igrpo_jax.study.comparison import comparison
    from igrpo_jax.study.results import read_results
    from igrpo_jax.study.runs import write_json
    from igrpo_jax.study.tables import markdown

    found: dict[str, dict[int, Any]] = {}
    for run, status in root.status.items():
        if status == "finished":
            try:
                config = replace(configs[run.arm], seed=run.seed)
                results = read_results(root.directory / run.workdir, config, study.metrics)
            except ValueError as error:
                if say:
                    say(f"warning: {run} is left out: {error}")
                continue
            found.setdefault(run.arm, {})[run.seed] = results
    made = comparison(study, found)
    missing = [f"{run} ({status})" for run, status in root.status.items() if status != "finished"]
    notes = [f"Not finished, so not in here: {', '.join(missing)}."] if missing else []
    write_json(root.directory / "comparison.json", made)
    replace_whole(root.directory / "comparison.md", markdown(study, made, notes).encode())
    return made, notes


def finish(study: Study, root: Any, configs: Mapping[str, Config]) -> None:
    """Shows what there is to compare."""
    from rich.console import Console

    from igrpo_jax.study.tables import on_terminal, tables

    made, notes = write_comparison(study, root, configs, say=print)
    if made["budget"]["by_arm"]:
        for cells in tables(study, made):
            Console().print(on_terminal(cells))
    for note in notes:
        print(note)
    print(f"wrote {root.directory / 'comparison.md'} and comparison.json")
    if study.config.train.report:
        print(report_on(root.directory))


def counted(runs: Sequence[Any]) -> str:
    """How many runs, in words."""
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"


def last_line(log: Path) -> str:
    """The last line of what a run has said, as it may be shown."""
    from igrpo_jax.edges.printable import printable

    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    line = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
    return printable(line.removeprefix("error: ").removesuffix(" (IGRPO_TRACEBACK=1 shows where)"))[:500]
