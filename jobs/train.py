"""Trains a policy."""

from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config, fields, to_dict
from igrpo_jax.edges.preemption import Stop
from jobs.arguments import Launch
from jobs.devices import devices
from jobs.export import write_export
from jobs.parts import assemble, initial_policy, read_data
from jobs.report import report_on


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Trains, exports, and shows the first and last steps."""
    with devices(launch, config, stop) as layout, ExitStack() as held:
        train(config, layout, workdir, held=held, stop=stop, track=launch.track)


def train(config: Config, layout: Any, workdir: Path, *, held: ExitStack, stop: Stop, track: str = "none") -> None:
    """What can be refused is refused before weights are read; `held` keeps the workdir this run's."""
    from igrpo_jax.records.checkpoint import Checkpoints, tell
    from igrpo_jax.records.lease import lease
    from igrpo_jax.records.runlog import RunLog, Silence, overview, read_metrics, summary_table
    from igrpo_jax.records.trackers.tracker import Tracker, installed
    from igrpo_jax.records.workdir import claim
    from igrpo_jax.rewards import load_rewards
    from igrpo_jax.train import train as train_policy
    from models.formats.load import find
    from models.formats.storage import check_replaceable
    from sharding.processes import compare

    if track != "none":
        installed(track)
    with load_rewards(config.reward, config.judge) as reward:
        found = find(config.model.source)
        data = read_data(config, layout, found)
        parts = assemble(config, layout, found, reward, data, pause=stop.check)
        if config.train.export:
            layout.processes.once(partial(check_replaceable, workdir / "export", found.directory))
        stop.at_exit(held.close)
        layout.processes.once(lambda: held.enter_context(lease(workdir, say=tell)))
        layout.processes.once(partial(claim, workdir, config, found.config, data.fingerprints))
        checkpoints = Checkpoints(workdir / "checkpoints", keep=config.train.keep, divide=layout.processes.divide)
        compare(layout.processes, {f"in {workdir} as its newest checkpoint": checkpoints.latest()})
        log = Silence()
        if layout.processes.first:
            completed = checkpoints.latest() or 0
            tracked = partial(Tracker, track, workdir, fields(to_dict(config)), resumed=completed > 0)
            tracker = None if track == "none" else lambda say: tracked(say=say)
            room = config.train.samples_mb
            log = RunLog(workdir, steps=config.train.steps, completed=completed, samples_mb=room, tracker=tracker)
        stop.at_exit(log.close)
        with closing(log), closing(checkpoints):
            log.console.print(overview(parts))
            initial = partial(initial_policy, config, layout, found)
            policy = train_policy(parts, initial, workdir=workdir, log=log, checkpoints=checkpoints, stop=stop)
    if config.train.export:
        write_export(config, policy, found, workdir)
    if layout.processes.first:
        log.console.print(summary_table(read_metrics(workdir)))
        if config.train.report:
            log.say(report_on(workdir))
    if checkpoints.unsaved:
        raise ValueError(f"{checkpoints.unsaved}, the last one; make room and give the same command again")
