"""`python launch.py --mesh 8x1 --config aime.py`: arguments -> config -> mesh -> policy -> run.

The only file that knows all the parts. `--help` explains every field; any field of the config can be overridden, as in
`--optim.learning-rate 3e-6`.
"""

import itertools
import json
import math
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from igrpo_jax.config import Config, fields, to_dict
from igrpo_jax.edges.checks import check
from igrpo_jax.edges.preemption import GRACE, RESUME, Preempted, Stop, leave, leave_together
from igrpo_jax.edges.user_code import load_config as config_from
from igrpo_jax.edges.user_code import path_of
from igrpo_jax.records.allocator import keep_memory

ROOT = Path(__file__).parent
load_config = partial(config_from, folder=ROOT / "configs")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Where and how to run; what to run is in the config."""

    config: str
    """Path of a config file with `get_config()`; a bare name is sought in configs/ too."""
    mesh: str = ""
    """Device mesh fsdp x tensor, like 8x1 or fsdp=8,tensor=1, or data x fsdp x tensor. Default: all devices on fsdp."""
    workdir: str = ""
    """Directory of the run; a run found there is resumed, or refused if it is another one. Default: runs/<config>."""
    job: Literal["train", "evaluate", "plan", "export", "report"] = "train"
    """train; evaluate the newest checkpoint (or the initial model); plan: what the run takes, compiled for --topology;
    export the checkpoint for transformers; report: show a run."""
    topology: str = "local"
    """Devices to plan for, there or not: v5p:2x2x2, a100-80gb:8, h100:8, or local."""
    cpu_devices: int = 0
    """Simulate this many devices on the CPU, in each process."""
    coordinator: str = ""
    """host:port of process 0, for several processes; auto has JAX find it (Kubernetes). Default: what Slurm, Open MPI
    or a TPU pod say."""
    process_id: int | None = None
    """This process, from 0; with --coordinator."""
    num_processes: int | None = None
    """How many processes there are; with --coordinator."""
    grace: float = GRACE
    """Seconds within which training saves what is completed and leaves after SIGTERM or SIGINT, with exit status 75."""
    max_hours: float = 0
    """Save and leave, with exit status 75, before so many hours have passed; 0 is never."""


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
        print(f"error: {' '.join(str(error).split())} (IGRPO_TRACEBACK=1 shows where)", file=sys.stderr)
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
    config = load_config(name) if name else Config()

    def arguments(
        launch: Annotated[Launch, tyro.conf.arg(name="")], config: Annotated[Config, tyro.conf.arg(name="")] = config
    ) -> tuple[Launch, Config]:
        return launch, config

    launch, config = tyro.cli(arguments, args=argv, prog="launch.py", description=__doc__)
    check(config)
    return launch, config


def run_job(launch: Launch, config: Config, stop: Stop) -> None:
    """Sets up the devices and the run's directory, and does the job."""
    workdir = path_of(launch.workdir) if launch.workdir else ROOT / "runs" / Path(launch.config).stem
    if launch.job == "report":
        from rich.console import Console

        from igrpo_jax.records.runlog import read_metrics, summary_table

        Console().print(summary_table(read_metrics(workdir)))
        return
    if launch.job == "plan":
        plan(config, launch, workdir)
        return
    layout = start_devices(launch, config)
    stop.join(layout.processes)
    with layout.active(flash=config.model.flash), ExitStack() as held:
        jobs = {"train": partial(train, held=held, stop=stop), "evaluate": evaluate, "export": export}
        jobs[launch.job](config, layout, workdir)


def start_devices(launch: Launch, config: Config | None = None) -> Any:
    """The layout over this run's mesh, once its processes have met; turns on the persistent compilation cache.

    On CPU a call returns once its program has ended; GPU and TPU queue programs.
    """
    import jax

    from models.formats.sources import cache_directory
    from sharding.layout import Layout
    from sharding.mesh import make_mesh
    from sharding.processes import compare, connect

    cpu_devices(launch)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # A queued program on CPU takes memory before the one ahead gives its own back, one more for every micro-batch.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    processes = connect(launch.coordinator, launch.process_id, launch.num_processes)
    compare(processes, facts(launch, config or Config()))
    return Layout(make_mesh(launch.mesh or f"{jax.device_count()}x1"), processes)


def cpu_devices(launch: Launch) -> None:
    """Simulates devices, if asked to, and asks for no TPU where there is none."""
    import jax

    from sharding.topology import skip_absent_tpu

    skip_absent_tpu()
    if launch.cpu_devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", launch.cpu_devices)


def facts(launch: Launch, config: Config) -> dict[str, Any]:
    """What must be the same in all processes of a run."""
    from sharding.processes import versions

    values = {f"--{name}": value for name, value in fields(to_dict(config)).items()}
    return {"--mesh": launch.mesh, "--job": launch.job, "--workdir": launch.workdir} | versions() | values


def train(config: Config, layout: Any, workdir: Path, *, held: ExitStack, stop: Stop) -> None:
    """Trains, exports, and shows the first and last steps; what can be refused is refused before weights are read."""
    from igrpo_jax.records.checkpoint import Checkpoints, tell
    from igrpo_jax.records.lease import lease
    from igrpo_jax.records.runlog import RunLog, Silence, overview, read_metrics, summary_table
    from igrpo_jax.records.workdir import claim
    from igrpo_jax.rewards import load_rewards
    from igrpo_jax.train import train as train_policy
    from models.formats.load import find
    from models.formats.storage import check_replaceable
    from sharding.processes import compare

    with load_rewards(config.reward) as reward:
        found = find(config.model.source)
        data = read_data(config, layout, found)
        run = assemble(config, layout, found, reward, data, pause=stop.check)
        if config.train.export:
            layout.processes.once(partial(check_replaceable, workdir / "export", found.directory))
        layout.processes.once(lambda: held.enter_context(lease(workdir, say=tell)))
        layout.processes.once(partial(claim, workdir, config, found.config, data.fingerprints))
        checkpoints = Checkpoints(workdir / "checkpoints", keep=config.train.keep, divide=layout.processes.divide)
        compare(layout.processes, {f"in {workdir} as its newest checkpoint": checkpoints.latest()})
        log = Silence()
        if layout.processes.first:
            log = RunLog(workdir, steps=config.train.steps, completed=checkpoints.latest() or 0)
        log.console.print(overview(run))
        try:
            initial = partial(initial_policy, config, layout, found)
            policy = train_policy(run, initial, workdir=workdir, log=log, checkpoints=checkpoints, stop=stop)
        finally:
            checkpoints.close()
            log.close()
    if config.train.export:
        write_export(config, policy, found, workdir)
    if layout.processes.first:
        log.console.print(summary_table(read_metrics(workdir)))
    if checkpoints.unsaved:
        raise ValueError(f"{checkpoints.unsaved}, the last one; make room and give the same command again")


def evaluate(config: Config, layout: Any, workdir: Path) -> None:
    """Evaluates the newest checkpoint of the workdir, or the initial model when there is none; prints JSON alone."""
    from igrpo_jax.records.workdir import compare_run
    from igrpo_jax.rewards import load_rewards
    from igrpo_jax.train import run_evaluations
    from models.formats.load import find

    if not config.data.eval:
        raise ValueError("the config has no evaluation sets; name sources with --data.eval")
    say = partial(print, file=sys.stderr)
    with load_rewards(config.reward) as reward:
        found = find(config.model.source)
        layout.processes.once(partial(compare_run, workdir, config, found.config, say=say))
        data = read_data(config, layout, found, train=False, columns=reward.needed, say=say)
        run = assemble(config, layout, found, reward, data)
        params, step = newest_params(workdir, run.learner, layout)
        initial = f"the initial model {config.model.source}, for {workdir} holds no checkpoint"
        what = f"step {step} of {workdir}" if step else initial
        say(f"evaluating {what}")
        params = initial_policy(config, layout, found) if params is None else params
        results = {"model": what, "step": step} | run_evaluations(run, params)
        if layout.processes.first:
            print(json.dumps(results, indent=2))


def plan(config: Config, launch: Launch, workdir: Path) -> None:
    """Compiles the run for devices that need not be there; prints what it takes and writes plan.json."""
    import jax
    from rich.console import Console

    from igrpo_jax.planning.fitting import fitting
    from igrpo_jax.planning.plan import Chip, summary, table
    from models.formats.load import architecture
    from sharding.layout import PlannedLayout
    from sharding.mesh import make_mesh
    from sharding.topology import find_target, grown

    cpu_devices(launch)
    if launch.topology != "local":
        jax.config.update("jax_platforms", "cpu")  # the compilers are here, the devices are not
    target = find_target(launch.topology)
    mesh = make_mesh(launch.mesh or f"{len(target.devices)}x1", target.devices)
    model = architecture(config.model.source)

    def make(config: Config, growth: int, tensor: int | None) -> tuple[str, Any]:
        topology = launch.topology if growth == 1 else grown(launch.topology, growth)
        there = target if growth == 1 else find_target(topology)
        text = launch.mesh if tensor is None else f"{len(there.devices) // tensor}x{tensor}"
        layout = PlannedLayout(mesh if tensor is None else make_mesh(text, there.devices))
        with layout.active(flash=config.model.flash):
            return f"--topology {topology} --mesh {text}", plan_of(config, layout, model, there)

    known, fsdp, tensor = target.chip, mesh.shape["fsdp"], mesh.shape["tensor"]
    chip = known and Chip(known.memory, known.flops, known.bandwidth, known.weights_link(fsdp, tensor))
    found, changes = fitting(config, make, chip, tensor)
    result = summary(found, chip) | {"topology": launch.topology, "mesh": dict(mesh.shape)}
    result |= {"model": config.model.source, "config": launch.config, "changes": changes}
    Console().print(table(result))
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "plan.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {workdir / 'plan.json'}")
    if not result.get("fits", True):
        raise SystemExit(1)


def plan_of(config: Config, layout: Any, model: Any, target: Any) -> Any:
    """One `igrpo_jax.planning.plan.Plan`."""
    from igrpo_jax.planning.plan import Costs, plan
    from igrpo_jax.prompts import TEMPLATE
    from igrpo_jax.sampling.pools import pool_of
    from igrpo_jax.types import Shapes
    from models import decoder
    from models.costs import costs

    prompt = config.prompt.max_prompt_length
    refinement = prompt + config.prompt.max_draft_length + TEMPLATE
    shapes = Shapes(prompt, refinement, config.sampling.max_completion_length)
    pool = pool_of(config, layout.num_row_shards, shapes)
    return plan(
        decoder, layout, make_learner(config, layout, model), config, pool, shapes,
        Costs(*costs(model)), platform=target.platform, devices=len(target.devices),
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip


def export(config: Config, layout: Any, workdir: Path) -> None:
    """Writes the newest checkpoint as a Hugging Face model."""
    from igrpo_jax.records.workdir import compare_run
    from models.formats.load import find

    found = find(config.model.source)
    layout.processes.once(partial(compare_run, workdir, config, found.config, say=partial(print, file=sys.stderr)))
    params, step = newest_params(workdir, make_learner(config, layout, found.config), layout)
    if step == 0:
        raise ValueError(f"{workdir} holds no checkpoint to export; train first or give another --workdir")
    write_export(config, params, found, workdir)


def newest_params(workdir: Path, learner: Any, layout: Any) -> tuple[Any, int]:
    """Parameters of the newest checkpoint and its step, the same in all processes; None and 0 without one."""
    from igrpo_jax.records.checkpoint import Checkpoints
    from sharding.processes import compare

    checkpoints = Checkpoints(workdir / "checkpoints", keep=None, divide=layout.processes.divide)
    step = checkpoints.latest()
    compare(layout.processes, {f"in {workdir} as its newest checkpoint": step})
    params = None if step is None else checkpoints.restore_params(step, learner.placed)
    checkpoints.close()
    return params, step or 0


def initial_policy(config: Config, layout: Any, found: Any) -> Any:
    """The policy that training starts from, in its place on the mesh."""
    from models.formats.load import load_policy

    return load_policy(found, shardings=layout.train_shardings, remat=config.model.remat, seed=config.seed)


def make_learner(config: Config, layout: Any, architecture: Any) -> Any:
    """The learner for a policy of this architecture."""
    from igrpo_jax.learning.learner import Learner
    from models import decoder
    from models.formats.load import abstract

    auto = "float32" if layout.mesh.devices.flat[0].platform == "cpu" else "bfloat16"
    dtype = auto if config.model.dtype == "auto" else config.model.dtype
    shapes = abstract(architecture, remat=config.model.remat)
    return Learner(decoder, layout, config, shapes, dtype=dtype)


def read_data(config: Config, layout: Any, found: Any, **options: Any) -> Any:
    """The problems that fit into this model's prompts, an `igrpo_jax.data.Data`; options as of `load_problems`."""
    from igrpo_jax.data import load_problems
    from igrpo_jax.prompts import Prompter

    prompter = Prompter(found.tokenizer, config.prompt, stop_ids=found.stop_ids)
    return load_problems(config, count_tokens=prompter.lengths, divide=layout.processes.divide, **options)


def assemble(config: Config, layout: Any, found: Any, reward: Any, data: Any = None, **options: Any) -> Any:
    """Data, prompts, sampler and learner as one `igrpo_jax.train.Run`; options as of `Sampler`."""
    from igrpo_jax.prompts import Prompter, beyond_positions, refinement_limit
    from igrpo_jax.sampling.pools import evaluation_pool, pool_of
    from igrpo_jax.sampling.sampler import Sampler
    from igrpo_jax.train import Run
    from igrpo_jax.types import Shapes
    from models import decoder

    tokenizer = found.tokenizer
    prompter = Prompter(tokenizer, config.prompt, stop_ids=found.stop_ids)
    warn(layout, prompter.warning)
    stops = list(dict.fromkeys([*found.stop_ids, *prompter.stops(config.sampling.stop_strings)]))
    data = data or read_data(config, layout, found)
    longest = data.longest_prompt
    shapes = Shapes(
        prompt=longest,
        refinement=refinement_limit(prompter, tokenizer, config.prompt, longest),
        completion=config.sampling.max_completion_length,
    )
    answers = max(shapes.completion, config.eval.max_completion_length if data.evals else 0)
    asked = shapes.refinement if config.algorithm.num_drafts or config.eval.refine else shapes.prompt
    warn(layout, beyond_positions(asked, answers, found.config.max_position))
    pool = pool_of(config, layout.num_row_shards, shapes)
    make = partial(Sampler, decoder, layout, seed=config.seed, stop_ids=stops, decode=prompter.text, **options)
    sampler = evaluator = make(pool=pool)
    if data.evals:
        other = evaluation_pool(pool, config, layout.num_row_shards, shapes, max(map(len, data.evals.values())))
        evaluator = sampler if other == pool else make(pool=other)
    learner = make_learner(config, layout, found.config)
    return Run(
        config, layout, learner, sampler, evaluator, prompter, reward, shapes, data.batches, data.evals,
        layout.processes.divide,
    )  # fmt: skip


def warn(layout: Any, text: str | None) -> None:
    """Says what is odd, if anything is, once for all processes."""
    if text and layout.processes.first:
        print(f"warning: {text}", file=sys.stderr)


def write_export(config: Config, params: Any, found: Any, workdir: Path) -> None:
    """Writes workdir/export for transformers."""
    import jax

    from models.formats.weights import export

    dtype = config.model.export_dtype
    export(params, workdir / "export", tokenizer=found.tokenizer, source=found.directory, dtype=dtype)
    if jax.process_index() == 0:
        print(f"exported to {workdir / 'export'}")


if __name__ == "__main__":
    keep_memory()
    if status := main():
        leave(status)  # what hangs in a thread, a reward say, would keep Python from ending
