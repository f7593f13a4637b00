"""Grades what was sampled once more, without sampling and without devices."""

import json
from contextlib import ExitStack
from pathlib import Path

from igrpo_jax.config import Config
from igrpo_jax.edges.preemption import Stop
from igrpo_jax.edges.printable import say
from igrpo_jax.edges.user_code import path_of
from jobs.arguments import Launch
from jobs.evaluate import make_room, recorder, show


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Grades --generations by the config's rewards; writes into the workdir, never over the file, and prints JSON."""
    from igrpo_jax.evaluate.evaluate import metrics_of
    from igrpo_jax.evaluate.regrade import line_of, read_generations, regraded
    from igrpo_jax.rewards import load_rewards

    if not launch.generations:
        raise ValueError(
            "--job grade needs --generations FILE; evaluations write such files into <workdir>/generations"
        )
    path = path_of(launch.generations)
    if workdir.resolve() in path.resolve().parents:
        raise ValueError(
            f"{path} lies in --workdir {workdir}, where it would be written over; choose another --workdir"
        )
    found = read_generations(path)
    with load_rewards(config.reward, config.judge) as reward, ExitStack() as held:
        make_room(workdir)
        write = recorder(workdir, held, say)
        lines = []
        for key, records in found.items():
            graded = regraded(records, reward)
            lines.append(line_of(path, key, graded, config.reward.functions))
            write(key[0], lines[-1], graded)
    show(lines, say)
    metrics = [{"step": line["step"]} | metrics_of(line) for line in lines]
    print(json.dumps({"generations": str(path), "reward": config.reward.functions, "evaluations": metrics}, indent=2))
