"""Compiles a run for devices that need not be there, and says what it takes."""

import json
from pathlib import Path
from typing import Any

from igrpo_jax.config import Config
from igrpo_jax.edges.preemption import Stop
from igrpo_jax.edges.printable import printable, say
from jobs.arguments import Launch
from jobs.devices import cpu_devices
from jobs.parts import make_learner


def run(launch: Launch, config: Config, workdir: Path, stop: Stop) -> None:
    """Prints what the run takes and writes plan.json."""
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
    print(printable(f"wrote {workdir / 'plan.json'}"))
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
        say=say,
    )  # fmt: skip
