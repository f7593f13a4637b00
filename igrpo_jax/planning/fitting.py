"""What would fit, where a plan does not: smaller programs or more devices, found by planning those."""

from collections.abc import Callable
from dataclasses import replace

from igrpo_jax.config import Config
from igrpo_jax.planning.plan import Chip, Plan

TRIES = 3
"""Changes that are compiled to find one that fits."""

ROOMY = 0.8
"""Share of a chip's memory that may be held for a mesh to be worth trying: programs need more."""


def smaller(config: Config, found: Plan) -> list[tuple[str, Config]]:
    """Changes that take less memory where a plan has its peak, the smallest first; they change no result of a run."""
    largest = max(found.phases, key=lambda name: found.phases[name].memory)
    if found.refused:
        of = {"gradient": "update", "optimizer": "update", "sampling view": "view"}
        largest = of.get(found.refused[0].name, "decode")
    if largest == "view":
        return []
    changes = []
    if largest == "update":
        if config.model.remat != "full":
            changes.append(("--model.remat full", replace(config, model=replace(config.model, remat="full"))))
        rows = config.train.micro_batch
        while rows > 1:
            rows //= 2
            full = replace(config.model, remat="full")
            changes.append(
                (
                    f"--train.micro-batch {rows}",
                    replace(config, model=full, train=replace(config.train, micro_batch=rows)),
                )
            )
        return changes
    rows = found.rows
    while rows > 1 and len(changes) < 4:
        rows //= 2
        changes.append((f"--sampling.rows {rows}", replace(config, sampling=replace(config.sampling, rows=rows))))
    return changes


def roomier(found: Plan, chip: Chip, tensor: int) -> list[tuple[int, int]]:
    """Meshes on which what is held fits with room to spare: times as many devices, and the tensor axis; fewest first.

    Args:
      found: a plan that does not fit.
      chip: of each device.
      tensor: size of the plan's tensor axis.
    """
    of = found.held
    state = of["parameters"] + of["moments"]
    meshes = []
    for growth in (1, 2, 4, 8):
        for ways in (1, 2, 4, 8):
            share = tensor / ways
            rows = of.get("prefixes", 0) + of.get("own caches", 0)
            sampling = state / growth + share * (of["sampling view"] + rows)
            held = max(sampling, (state + 2 * of["gradients"]) / growth)
            if (growth, ways) != (1, tensor) and held <= ROOMY * chip.memory and found.devices * growth >= ways:
                meshes.append((growth, ways))
    return meshes


Make = Callable[[Config, int, int | None], tuple[str, Plan]]
"""Arguments and plan of a config on times as many devices, with a tensor axis of that size (None: as asked for)."""


def fitting(config: Config, make: Make, chip: Chip | None, tensor: int) -> tuple[Plan, list[str]]:
    """The plan of a config; where it does not fit, also what became of `TRIES` changes, until one fits.

    Args:
      config: the experiment.
      make: see `Make`.
      chip: what the devices can do; None if that is not known.
      tensor: size of the mesh's tensor axis.
    """
    _, found = make(config, 1, None)
    said: list[str] = []
    if chip is None or found.fits(chip):
        return found, said
    state = (found.held["parameters"] + found.held["moments"] + 2 * found.held["gradients"]) > ROOMY * chip.memory
    changes = [] if state else [(change, other, 1, None) for change, other in smaller(config, found)]
    meshes = [("", config, growth, ways) for growth, ways in roomier(found, chip, tensor)]
    waiting = changes[: TRIES - 1] + meshes
    for _ in range(TRIES):
        if not waiting:
            break
        change, other, growth, ways = waiting.pop(0)
        try:
            arguments, trial = make(other, growth, ways)
        except ValueError as error:  # a mesh that does not divide this model
            said.append(f"{change} mesh of {growth} times the devices, tensor {ways}: {error}".strip())
            continue
        fits, asked = trial.fits(chip), change if ways is None else f"{arguments} {change}".strip()
        said.append(f"{asked}: {'fits' if fits else 'does not fit'}, {trial.peak / 1e9:.1f} GB")
        if fits:
            break
        more = smaller(other, trial)
        if ways is not None and more:  # this mesh once more, with a good deal less at once
            further, less = more[len(more) // 2]
            waiting.insert(0, (f"{change} {further}".strip(), less, growth, ways))
    return found, said
