"""What a run writes down: metrics.jsonl, TensorBoard events, samples.jsonl, and what it shows on the terminal."""

import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from igrpo_jax.config import extra_problems
from igrpo_jax.edges.printable import printable, say
from igrpo_jax.records import events
from igrpo_jax.records.evaluations import Evaluations, forget_evaluations
from igrpo_jax.records.lines import encoded, forget, read_records
from igrpo_jax.records.rotation import Rotation, parts
from igrpo_jax.records.samples import shown
from igrpo_jax.records.trackers import Tracker
from igrpo_jax.records.writer import Writer

BAR = ("draft/reward", "reward", "entropy", "grad_norm", "tokens_per_s/sample", "step_time")
"""Shown while training; the loss is not among them, near zero on policy it only frightens."""

SHOWN = 3
"""Samples in a table on the terminal."""


class RunLog:
    """Writes a run's records; on a terminal also a progress bar and tables of samples, plain lines otherwise.

    Files are written by a thread: if a disk is full, the run goes on, see `igrpo_jax.records.writer`.

    Attributes:
      kept: metrics of the steps that were completed before.
      steps: training steps in all, as far as is known.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        steps: int,
        completed: int,
        samples_mb: int = 0,
        console: Console | None = None,
        tracker: Callable[[Callable[[str], None]], Tracker] | None = None,
    ):
        """Opens the logs and forgets what a killed run wrote after its last checkpoint.

        Args:
          workdir: the run's directory.
          steps: training steps in all.
          completed: steps that are checkpointed; later records are dropped, they will be made again. Where this is 0 a
            run begins, and nothing is kept.
          samples_mb: MiB that samples may take, see `igrpo_jax.records.rotation`; 0 is without bound.
          console: for tests.
          tracker: makes what gets the metrics as well, given what says a line.

        Raises:
          OSError: the directory cannot be written; what is there stays.
        """
        kept = completed or -1
        self.console = console or Console()
        self._workdir = workdir
        kept_metrics = forget(workdir / "metrics.jsonl", after=kept, say=self.say)
        self._rotation = _samples_before(workdir, kept, samples_mb << 20, self.say)
        self.kept = kept_metrics
        forget_evaluations(workdir, after=kept, say=self.say)
        self._evaluated = {record["step"] for record in kept_metrics if _has_evaluations(record)}
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._board = workdir / "tensorboard" / name
        self._board.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(self.say)
        self._writer.append({self._board: events.beginning(kept + 1)})
        self._evaluations = Evaluations(workdir, self._writer, self.say)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("train", total=steps, completed=completed, shown="")
        self.steps = steps
        self._progress.start()
        self._tracker = tracker(self.say) if tracker else None

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        self.console.print(printable(text), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records metrics after `step` completed steps; evaluations are records of their own."""
        clean = {name: (value if math.isfinite(value) else None) for name, value in values.items()}
        if _has_evaluations(clean):
            self._evaluated.add(step)
        finite = {name: value for name, value in clean.items() if value is not None}
        line = encoded([{"step": step} | clean])
        self._writer.append({self._workdir / "metrics.jsonl": line, self._board: events.scalars(step, finite)})
        if self._tracker:
            self._tracker.log(step, finite)

    def evaluated(self, step: int) -> bool:
        """Whether there are records of evaluations after `step` completed steps."""
        return step in self._evaluated

    def evaluation(self, step: int, line: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
        """Records one set and mode, see `Evaluations.record`; its metrics go to `metrics`, with all others'."""
        self._evaluations.record(step, line, records)

    def advance(self, step: int, values: Mapping[str, float]) -> None:
        """Moves the progress bar, or prints a line where there is none."""
        shown = "  ".join(f"{name} {values[name]:.3g}" for name in BAR if name in values)
        if self.console.is_terminal:
            self._progress.update(self._task, completed=step, total=self.steps, shown=shown)
        else:
            self.say(f"step {step}/{self.steps}  {shown}")

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Records samples, each a `sample_record`, and shows some of them every 10 steps on a terminal."""
        lines = encoded([{"step": step} | dict(row) for row in rows])
        if lines:
            self._writer.append({self._rotation.place(step, len(lines)): lines})
        if rows and self.console.is_terminal and step % 10 == 0:
            self.console.print(samples_table(step, rows[:SHOWN]))

    def close(self) -> None:
        """Flushes everything."""
        self._progress.stop()
        self._writer.close()
        if self._tracker:
            self._tracker.close()


class Silence(RunLog):
    """Writes and shows nothing: for processes other than the first."""

    def __init__(self) -> None:
        self.console, self.kept = Console(quiet=True), []

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def evaluated(self, step: int) -> bool:
        """Not that this process knows."""
        return False

    def evaluation(self, step: int, line: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
        """Nothing; the records, which would be made for it, are not."""

    def advance(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def overview(run: Any) -> Any:
    """What will run, in numbers derived from the config and the mesh, shown before anything compiles."""
    config, layout, shapes = run.config, run.layout, run.shapes
    algorithm, problems = config.algorithm, config.train.problems_per_step
    table = Table(title="iGRPO" if algorithm.num_drafts else "GRPO", show_header=False)
    drafts, refinements = problems * algorithm.num_drafts, problems * algorithm.num_generations
    micro = config.train.micro_batch * layout.num_row_shards
    mesh = " x ".join(f"{name} {size}" for name, size in layout.mesh.shape.items())
    rows = {
        "model": f"{config.model.source}, {run.learner.num_parameters:,} parameters",
        "mesh": f"{mesh} ({layout.mesh.devices.flat[0].device_kind})",
        "steps": f"{config.train.steps} of {problems} problems",
        "sampled": f"{drafts} drafts + {refinements * algorithm.rounds} refinements a step",
        "trained": f"{refinements + drafts * (algorithm.draft_weight > 0)} completions in micro-batches of {micro}",
        "tokens": f"prompt {shapes.prompt}, with draft {shapes.refinement}, completion {shapes.completion}",
    }
    if extra := extra_problems(config):
        rows["chosen"] = f"others take the place of problems that are not worth training on, up to {extra} a step"
    for name, value in rows.items():
        table.add_row(name, plain(value))
    return table


def plain(value: Any) -> Text:
    """A cell in which nothing is markup or a control code."""
    return Text(printable(str(value)))


def _samples_before(workdir: Path, kept: int, limit: int, say: Callable[[str], None]) -> Rotation:
    """Where samples go from here on; those of later steps are forgotten, and files that held nothing else."""
    for path in parts(workdir):
        if not forget(path, after=kept, say=say) and path.name != "samples.jsonl":
            path.unlink()
    return Rotation(workdir, limit)


def samples_table(step: int, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Question | Best draft (reward) | Refinement | Reward | Advantage | Parsed | Gold."""
    table = Table(title=f"samples of step {step}", show_lines=True)
    for name in ("Question", "Draft (reward)", "Refinement", "Reward", "Advantage", "Parsed", "Gold"):
        table.add_column(name, overflow="fold")
    for row in map(shown, rows):
        draft, answer = row["draft"], row["refinement"]
        earlier = f"{draft['text'][-200:]} ({draft['reward']:g})" if draft else ""
        cells = (row["question"][-200:], earlier, answer["text"][-200:], f"{answer['reward']:g}")
        cells += (f"{answer['advantage']:+.2f}", str(answer["parsed"]), str(row["gold"]))
        table.add_row(*map(plain, cells))
    return table


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """All complete records of a run's metrics.jsonl, oldest first.

    Raises:
      ValueError: there is none.
    """
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the --workdir of a run that has trained")
    return read_records(path, say=say)


def summary_table(records: Sequence[Mapping[str, Any]], window: int = 5) -> Table:
    """Means over the first and the last `window` training steps, and evaluations before and after."""
    steps = [r for r in records if "reward" in r]
    evals = [r for r in records if _has_evaluations(r)]
    table = Table(title="first and last steps")
    table.add_column("metric")
    first, last = steps[:window], steps[-window:]
    for label, part in (("first", first), ("last", last)):
        table.add_column(f"{label} {len(part)}", justify="right")
    names = ("draft/reward", "draft/reward_best", "reward", "refine/gain", "frac_reward_zero_std", "entropy")
    names += ("completions/mean_length", "completions/clipped_ratio", "grad_norm", "step_time", "tokens_per_s/sample")
    for name in names:
        if steps and name in steps[0]:
            table.add_row(plain(name), *(_number(mean_of(part, name)) for part in (first, last)))
    if evals:
        table.add_section()
        for name, *values in _before_and_after(evals[0], evals[-1]):
            table.add_row(plain(name), *map(_number, values))
    return table


def _before_and_after(first: Mapping[str, Any], last: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Scores of two evaluations side by side; avg@n and maj@n of different n are compared, each of its largest.

    >>> list(_before_and_after({"eval/x/avg@8": 0.25, "eval/x/pass@8": 0.5}, {"eval/x/avg@9": 0.75}))
    [('eval/x/avg@n', 0.25, 0.75), ('eval/x/pass@8', 0.5, None)]
    """
    names = [name for name in dict.fromkeys([*first, *last]) if name.startswith("eval/")]
    largest: tuple[dict[str, Any], ...] = ({}, {})
    for name in sorted(names, key=_k):
        for found, record in zip(largest, (first, last), strict=True):
            if name in record:
                found[_of_any_n(name)] = record[name]
    rows = {}
    for name in names:
        of_any = _of_any_n(name)
        both = name in first and name in last
        if both or not all(of_any in found for found in largest):
            rows[name] = (first.get(name), last.get(name))
        else:
            rows[of_any] = tuple(found[of_any] for found in largest)
    yield from ((name, *values) for name, values in rows.items())


def _of_any_n(name: str) -> str:
    """A score's name with n in place of the number, where that is but how many answers were asked for."""
    return re.sub(r"(?<=/)(avg|maj)@\d+(?=$|_stderr$)", r"\1@n", name)


def _k(name: str) -> int:
    """The number behind the last @ of a score's name, 0 without."""
    found = re.search(r"@(\d+)(?:_stderr)?$", name)
    return int(found[1]) if found else 0


def mean_of(records: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean of a metric over the records that have it; NaN if none has."""
    values = [r[name] for r in records if r.get(name) is not None]
    return sum(values) / len(values) if values else math.nan


def _has_evaluations(record: Mapping[str, Any]) -> bool:
    return any(name.startswith("eval/") for name in record)


def _number(value: float | None) -> str:
    """A cell of a table, blank for what is missing."""
    return "" if value is None or math.isnan(value) else f"{value:.3f}"
