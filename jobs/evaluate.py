"""Evaluates a policy."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config
from igrpo_jax.edges.preemption import Stop
from igrpo_jax.edges.printable import say
from jobs.arguments import Launch
from jobs.devices import devices
from jobs.parts import assemble, initial_policy, newest_params, read_data


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Evaluates the newest checkpoint of the workdir, or the initial model when there is none; prints JSON alone."""
    with devices(launch, config, stop) as layout:
        evaluate(config, layout, workdir)


def evaluate(config: Config, layout: Any, workdir: Path) -> None:
    """As `run`."""
    from igrpo_jax.records.workdir import compare_run
    from igrpo_jax.rewards import load_rewards
    from igrpo_jax.train import run_evaluations
    from models.formats.load import find

    if not config.data.eval:
        raise ValueError("the config has no evaluation sets; name sources with --data.eval")
    with load_rewards(config.reward) as reward:
        found = find(config.model.source)
        layout.processes.once(partial(compare_run, workdir, config, found.config, say=say))
        data = read_data(config, layout, found, train=False, columns=reward.needed, say=say)
        parts = assemble(config, layout, found, reward, data)
        params, step = newest_params(workdir, parts.learner, layout)
        initial = f"the initial model {config.model.source}, for {workdir} holds no checkpoint"
        what = f"step {step} of {workdir}" if step else initial
        say(f"evaluating {what}")
        params = initial_policy(config, layout, found) if params is None else params
        results = {"model": what, "step": step} | run_evaluations(parts, params)
        if layout.processes.first:
            print(json.dumps(results, indent=2))
