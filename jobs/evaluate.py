"""Evaluates a policy."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config
from igrpo_jax.edges.preemption import Stop
from igrpo_jax.edges.printable import say
from jobs.arguments import Launch
from jobs.devices import devices
from jobs.parts import assemble, newest_policy, read_data


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Evaluates the newest checkpoint of the workdir, or the initial model when there is none; prints JSON alone."""
    with devices(launch, config, stop) as layout:
        evaluate(config, layout, workdir)


def evaluate(config: Config, layout: Any, workdir: Path) -> None:
    """As `run`; the table goes to standard error, lines and generations into the workdir."""
    from igrpo_jax.evaluate.evaluate import metrics_of
    from igrpo_jax.records.workdir import compare_run
    from igrpo_jax.rewards import load_rewards
    from models.formats.load import find

    if not config.data.eval:
        raise ValueError("the config has no evaluation sets; name sources with --data.eval")
    with load_rewards(config.reward, config.judge) as reward, ExitStack() as held:
        found = find(config.model.source)
        layout.processes.once(partial(compare_run, workdir, config, found.config, say=say))
        data = read_data(config, layout, found, train=False, columns=reward.needed, say=say)
        parts = assemble(config, layout, found, reward, data)
        layout.processes.once(partial(make_room, workdir))
        write = recorder(workdir, held, say) if layout.processes.first else nowhere
        params, step, what = newest_policy(config, layout, found, parts.learner, workdir)
        say(f"evaluating {what}")
        lines = evaluated(parts, params, step, write)
        if layout.processes.first:
            show(lines, say)
            metrics = {name: value for line in lines for name, value in metrics_of(line).items()}
            print(json.dumps({"model": what, "step": step} | metrics, indent=2))


def evaluated(parts: Any, params: Any, step: int, write: Any) -> list[dict[str, Any]]:
    """The lines of all sets in all modes, each written as soon as it is there."""
    from igrpo_jax.evaluate.evaluate import evaluation_line
    from igrpo_jax.train import run_evaluations

    lines = []
    for name, evaluation in run_evaluations(parts, params):
        lines.append(evaluation_line(name, evaluation, parts.config))
        write(step, lines[-1], evaluation.records(parts.prompter.text))
    return lines


def make_room(workdir: Path) -> None:
    """Makes the workdir.

    Raises:
      ValueError: it cannot be written, or holds something else of the name of what is written.
    """
    from igrpo_jax.records.evaluations import FOLDER
    from igrpo_jax.records.workdir import check_logs

    try:
        check_logs(workdir, ("eval.jsonl",))
        (workdir / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--workdir {workdir} cannot be written ({error.strerror}); choose another") from error


def recorder(workdir: Path, held: ExitStack, say: Any) -> Any:
    """What writes evaluations into the workdir; `held` waits for the last line when it is left."""
    from igrpo_jax.records.evaluations import Evaluations
    from igrpo_jax.records.writer import Writer

    writer = Writer(say)
    held.callback(writer.close)
    return Evaluations(workdir, writer, say).record


def nowhere(step: int, line: Any, records: Any) -> None:
    """Writes nothing, in processes other than the first."""


def show(lines: list[dict[str, Any]], say: Any) -> None:
    """The table on standard error, and by how much bare and refined differ in tokens."""
    from rich.console import Console

    from igrpo_jax.edges.printable import printable
    from igrpo_jax.evaluate.table import difference, evaluations_table

    Console(stderr=True).print(evaluations_table(lines))
    for text in difference(lines):
        say(printable(text))
