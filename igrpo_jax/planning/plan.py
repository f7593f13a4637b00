"""What a run takes before it is paid for: its programs compiled for its devices, memory by phase, seconds at best."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from igrpo_jax.config import Config
from igrpo_jax.learning.learner import Learner
from igrpo_jax.learning.microbatches import Completions, micro_batches
from igrpo_jax.losses import penalized
from igrpo_jax.planning.dry import Compiled, NoRoom, Recorder, held
from igrpo_jax.protocols import Layout, Model
from igrpo_jax.sampling.programs import Pool, Programs
from igrpo_jax.types import Batch, Shapes

USABLE = 0.95
"""Share of a chip's memory that a program may take; the rest is the runtime's, and lost between arrays."""


class Chip(NamedTuple):
    """What one device can do: bytes of memory; operations, bytes of memory, and bytes received over links, a second."""

    memory: float
    flops: float
    bandwidth: float
    link: float


class Costs(NamedTuple):
    """What the policy costs a token; see `models.costs.Costs`."""

    layers: int
    head: int
    pair: int


class Phase(NamedTuple):
    """One phase of a step, on each device.

    Attributes:
      memory: bytes at its peak.
      flops: operations.
      moved: bytes of memory read or written, at least.
      linked: bytes received through collectives.
    """

    memory: int
    flops: float
    moved: float
    linked: float

    def seconds(self, chip: Chip) -> dict[str, float]:
        """The three times, each as if it were the only one that counts."""
        return {
            "compute": self.flops / chip.flops,
            "memory": self.moved / chip.bandwidth,
            "links": self.linked / chip.link,
        }


class Plan(NamedTuple):
    """A run on paper.

    Attributes:
      held: bytes a device by what they are: parameters, moments, gradients, sampling view; prefixes and own caches, if
        there is room for them.
      programs: what was compiled.
      phases: view (the weights laid out for sampling), prefill, decode, update.
      devices: how many there are.
      rows: completions that a device decodes at once.
      steps: of the run.
      tokens: that a step samples at most.
    """

    held: dict[str, int]
    programs: list[Compiled]
    phases: dict[str, Phase]
    devices: int
    rows: int
    steps: int
    tokens: int

    @property
    def peak(self) -> int:
        """Bytes a device of the largest phase."""
        return max(phase.memory for phase in self.phases.values())

    @property
    def refused(self) -> list[Compiled]:
        """Programs that the compiler has found no room for."""
        return [program for program in self.programs if program.refused]

    def fits(self, chip: Chip) -> bool:
        """Whether every program compiled and the peak leaves the runtime its share."""
        return not self.refused and self.peak <= USABLE * chip.memory

    def step_seconds(self, chip: Chip) -> dict[str, float]:
        """Seconds of each phase if everything overlapped perfectly: the longest of its three times."""
        return {name: max(phase.seconds(chip).values()) for name, phase in self.phases.items()}


def plan(
    model: Model, layout: Layout, learner: Learner, config: Config, pool: Pool, shapes: Shapes, costs: Costs,
    *, platform: str, devices: int, say: Callable[[str], None],
) -> Plan:  # fmt: skip
    """Compiles prefill, decode and update at their largest shapes.

    Args:
      model: see `igrpo_jax.protocols.Model`.
      layout: puts shapes where a run puts arrays.
      learner: made for that layout.
      config: the experiment.
      pool: what is in flight; its largest sizes are planned.
      shapes: static lengths.
      costs: of the policy.
      platform: of the devices, as JAX spells it.
      devices: how many.
      say: hears of each program that is compiled.
    """
    recorder = Recorder(platform, say)
    largest = replace(pool, prompts=pool.prompts[-1:], completions=pool.completions[-1:], tails=())
    state, view, slots = learner.placed, learner.placed_view, None
    # What does not fit is recorded, and the rest is compiled all the same.
    with suppress(NoRoom):
        recorder.compile("sampling view", learner.view.trace(state.params))
    with suppress(NoRoom):
        programs = Programs(model, layout, largest, view, layout.everywhere(jax.random.key(0)), recorder.wrap)
        slots = programs.idle(view)
    part, count = _micro_batch(config, shapes, layout.num_row_shards)
    with suppress(NoRoom):
        recorder.compile(
            "gradient", learner.gradient_program(part, several=count > 1 or config.algorithm.draft_weight > 0)
        )
    with suppress(NoRoom):
        recorder.compile("optimizer", learner.optimizer_program((learner.report(part),)))
    found = {one.name: one for one in sorted(recorder.programs, key=lambda one: one.peak)}  # the largest of a name
    memory = {
        "parameters": held(state.params),
        "moments": held(state.moments),
        "gradients": held(state.params),
        "sampling view": held(view),
    }
    if slots is not None:
        memory |= {"prefixes": held(slots.prefix), "own caches": held(slots.cache)}
    phases = _phases(found, memory, config, pool, shapes, costs, count, devices)
    rows = pool.slots * pool.lanes // layout.num_row_shards
    return Plan(memory, recorder.programs, phases, devices, rows, config.train.steps, _rows(config) * shapes.completion)


def _rows(config: Config) -> int:
    """Completions sampled in a step."""
    a = config.algorithm
    return config.train.problems_per_step * (a.num_drafts + a.num_generations * a.rounds)


def _micro_batch(config: Config, shapes: Shapes, shards: int) -> tuple[Completions, int]:
    """The largest micro-batch of a step, all of it real, and how many there are."""
    p, g, t = config.train.problems_per_step, config.algorithm.num_generations, shapes.completion
    length = shapes.refinement if config.algorithm.num_drafts else shapes.prompt
    zeros = lambda *shape: np.zeros(shape, np.float32)
    batch = Batch(
        lengths=np.full((p, g), t, np.int32), advantages=np.ones((p, g), np.float32),
        old_logprobs=zeros(p, g, t) if config.algorithm.num_iterations > 1 else None,
        ref_logprobs=zeros(p, g, t) if penalized(config.algorithm) else None, weights=zeros(p, g, t),
    )  # fmt: skip
    prompts, tokens = np.zeros((p, length), np.int32), np.zeros((p, g, t), np.int32)
    whole = Completions(prompts, np.full(p, length, np.int32), tokens, batch, zeros(p, g, t))
    cut = micro_batches(whole, rows=config.train.micro_batch, shards=shards, keep_dead=True)
    return cut.parts[0], len(cut.parts)


def _phases(
    found: Mapping[str, Compiled], memory: Mapping[str, int], config: Config, pool: Pool, shapes: Shapes, costs: Costs,
    micro_batches: int, devices: int,
) -> dict[str, Phase]:  # fmt: skip
    """Peaks from the compiler; operations and bytes from the shapes, all completions at full length."""
    a, p, t = config.algorithm, config.train.problems_per_step, shapes.completion
    program = lambda name: found.get(name, Compiled(name))
    reference = memory["parameters"] if a.beta > 0 else 0
    resident = memory["parameters"] + memory["moments"] + reference
    prefixes, caches = memory.get("prefixes", 0), memory.get("own caches", 0)
    # While one of them grows to its last size, or moves to fewer slots, the smaller one is there too.
    before = lambda sizes: sizes[-2] / sizes[-1] if len(sizes) > 1 else 0.0
    fewer = before((*pool.tails, pool.slots))
    old = math.ceil(max(prefixes * max(before(pool.prompts), fewer), caches * max(before(pool.completions), fewer)))
    growing = memory["sampling view"] + prefixes + caches + old
    admitting = memory["sampling view"] + caches + program("admit").peak
    making = program("sampling view")
    view = Phase(
        memory["moments"] + reference + making.peak, 0.0, memory["parameters"] + memory["sampling view"],
        sum(making.traffic.values()),
    )  # fmt: skip
    prompts = [shapes.prompt, *[shapes.refinement] * a.rounds] if a.num_drafts else [shapes.prompt]
    last = prompts[-1]

    prefill_flops = sum(p * (2 * costs.layers * n + costs.pair * n * n / 2) for n in prompts)
    calls = p * len(prompts) / pool.prefill[-1]
    prefill = Phase(
        resident + prefixes + caches + program("prefill").peak, prefill_flops / devices,
        calls * memory["sampling view"], calls * sum(program("prefill").traffic.values()),
    )  # fmt: skip

    rows = pool.slots * pool.lanes
    steps = -(-_rows(config) // rows) * t
    keys = sum(prompts) / len(prompts) + t / 2
    row_flops = 2 * (costs.layers + costs.head) + costs.pair * keys
    decode = Phase(
        resident + max(program("decode").peak, growing, admitting), steps * rows * row_flops / devices,
        steps * (memory["sampling view"] + prefixes + caches / 2),
        steps * sum(program("decode").traffic.values()),
    )  # fmt: skip

    # Forward once, backward twice; everything once more where it is recomputed, the head in any case.
    again = 4 if config.model.remat == "full" else 3
    g, iterations = a.num_generations, a.num_iterations
    scored = p * (g + (a.num_drafts if a.draft_weight else 0)) * t
    copies = g // math.gcd(g, config.train.micro_batch)  # a prompt is computed once for each part of its group
    pairs = p * (copies * last * last / 2 + g * t * (last + t / 2))
    update_flops = (
        again * (2 * costs.layers * (copies * p * last + scored) + costs.pair * pairs) + 4 * 2 * costs.head * scored
    )
    state = 2 * (resident - reference) + 2 * memory["gradients"]
    update = Phase(
        reference + max(memory["moments"] + program("gradient").peak, program("optimizer").peak),
        iterations * update_flops / devices,
        iterations * (micro_batches * 3 * memory["gradients"] + state),
        iterations
        * (micro_batches * sum(program("gradient").traffic.values()) + sum(program("optimizer").traffic.values())),
    )  # fmt: skip
    return {"view": view, "prefill": prefill, "decode": decode, "update": update}


def summary(found: Plan, chip: Chip | None) -> dict[str, Any]:
    """The plan, ready for JSON: bytes a device, seconds at best."""
    result: dict[str, Any] = {
        "devices": found.devices,
        "held_bytes": found.held,
        "peak_bytes": {name: phase.memory for name, phase in found.phases.items()},
        "flops": {name: phase.flops for name, phase in found.phases.items()},
        "memory_traffic_bytes": {name: phase.moved for name, phase in found.phases.items()},
        "collective_bytes": {name: phase.linked for name, phase in found.phases.items()},
        "programs": [program._asdict() | {"traffic": dict(program.traffic)} for program in found.programs],
    }
    if chip is not None:
        seconds = found.step_seconds(chip)
        step = sum(seconds.values())
        result |= {
            "fits": found.fits(chip),
            "capacity_bytes": chip.memory,
            "seconds_at_best": seconds,
            "link_seconds": {name: phase.seconds(chip)["links"] for name, phase in found.phases.items()},
            "bound_by": {
                name: max(times, key=lambda kind: times[kind])
                for name, times in ((name, phase.seconds(chip)) for name, phase in found.phases.items())
            },
            "step_seconds_at_best": step,
            "tokens_per_s_at_best": found.tokens / step,
            "days_at_best": step * found.steps / 86400,
            "device_hours_at_best": step * found.steps * found.devices / 3600,
        }
    return result


def table(result: Mapping[str, Any]) -> Any:
    """`summary`, and what else was planned, for a terminal."""
    from rich.table import Table

    gb = lambda number: f"{number / 1e9:.2f}"
    mesh = " x ".join(f"{name} {size}" for name, size in result["mesh"].items())
    shown = Table(title=f"{result['config']} on {result['topology']}, {mesh}: GB a device", show_header=False)
    for name, number in result["held_bytes"].items():
        shown.add_row(name, gb(number))
    shown.add_section()
    for program in result["programs"]:
        text = program["refused"] or f"{gb(program['temporary'])} temporary, {program['seconds']:.0f} s to compile"
        shown.add_row(f"program {program['name']}", text)
    shown.add_section()
    for name, number in result["peak_bytes"].items():
        shown.add_row(f"peak of {name}", gb(number))
    if "fits" not in result:
        return shown
    peak, capacity = max(result["peak_bytes"].values()), result["capacity_bytes"]
    refused = ", ".join(program["name"] for program in result["programs"] if program["refused"])
    text = f"no room for {refused}" if refused else f"{gb(peak)} of {gb(capacity)}"
    shown.add_row("fits", f"{result['fits']}: {text}")
    for change in result["changes"]:
        shown.add_row("with", change)
    shown.add_section()
    for name, seconds in result["seconds_at_best"].items():
        linked = f"{gb(result['collective_bytes'][name])} through links in {result['link_seconds'][name]:.1f} s"
        shown.add_row(f"{name}, at best", f"{seconds:.1f} s ({result['bound_by'][name]}); {linked}")
    shown.add_row("step, at best", f"{result['step_seconds_at_best']:.1f} s, all completions at full length")
    shown.add_row("tokens/s, at best", f"{result['tokens_per_s_at_best']:,.0f}")
    hours = result["device_hours_at_best"]
    shown.add_row("run, at best", f"{result['days_at_best']:.1f} days, {hours:,.0f} device hours")
    return shown
