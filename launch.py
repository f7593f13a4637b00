"""`python launch.py --mesh 8x1 --config aime.py`: arguments -> config -> one of jobs/.

`--help` explains every field; any field of the config can be overridden, as in
`--optim.learning-rate 3e-6`.
"""

import itertools
import math
import os
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated

from igrpo_jax.config import Config
from igrpo_jax.edges.checks import check
from igrpo_jax.edges.preemption import RESUME, Preempted, Stop, end, leave_together
from igrpo_jax.edges.printable import say
from igrpo_jax.edges.user_code import load_config as config_from
from igrpo_jax.edges.user_code import path_of
from igrpo_jax.records.machine.allocator import keep_memory
from jobs.arguments import ALONE, WITHOUT, Launch

ROOT = Path(__file__).parent
load_config = partial(config_from, folder=ROOT / "configs")


def main(argv: list[str] | None = None) -> int:
    """Runs one job; an error of the user's is one line that names the fix, and exit status 2."""
    argv = sys.argv[1:] if argv is None else argv
    stop = Stop()
    try:
        with stop.listening():
            launch, config = parse(argv)
            stop.grace = launch.grace
            if launch.job == "train":
                stop.end_by(launch.max_hours * 3600 or math.inf)
                run_job(launch, config, stop)
        if launch.job != "train":
            run_job(launch, config, stop)
    except (ValueError, OSError) as error:
        if os.environ.get("IGRPO_TRACEBACK"):
            raise
        say(f"error: {' '.join(str(error).split())} (IGRPO_TRACEBACK=1 shows where)")
        leave_together(2)
        return 2
    except Preempted:
        leave_together(RESUME)
        return RESUME
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def parse(argv: list[str]) -> tuple[Launch, Config]:
    """The launch arguments and the config file's values with overrides applied."""
    import tyro

    name = next((b for a, b in itertools.pairwise(argv) if a == "--config"), None)
    name = name or next((a.partition("=")[2] for a in argv if a.startswith("--config=")), None)
    config = load_config(name) if name else WITHOUT

    def arguments(
        launch: Annotated[Launch, tyro.conf.arg(name="")], config: Annotated[Config, tyro.conf.arg(name="")] = config
    ) -> tuple[Launch, Config]:
        return launch, config

    launch, config = tyro.cli(arguments, args=argv, prog="launch.py", description=__doc__)
    if not launch.config and launch.job not in ALONE:
        raise ValueError(f"--job {launch.job} needs --config; those shipped are in configs/, quickstart.py for one")
    check(config)
    return launch, config


def run_job(launch: Launch, config: Config, stop: Stop) -> None:
    """Does the job, in the run's directory."""
    if len(launch.workdir) > 1 and launch.job != "report":
        raise ValueError(
            f"--workdir has {len(launch.workdir)} directories; --job {launch.job} takes one, report several"
        )
    if launch.job == "report" and not (launch.workdir or launch.config):
        raise ValueError("--job report needs a --workdir, or the --config of a run in runs/")
    default = ROOT / "runs" / (Path(launch.config).stem or launch.job)
    workdir = path_of(launch.workdir[0]) if launch.workdir else default
    import_module(f"jobs.{launch.job}").run(launch, config, workdir, stop)


if __name__ == "__main__":
    keep_memory()
    end(main())
