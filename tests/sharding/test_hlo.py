"""It is really sharded: what the compiled programs send between eight devices, read from their HLO."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import launch
from igrpo_jax.learning.learner import TrainState
from igrpo_jax.learning.microbatches import Completions, Shape, pack
from igrpo_jax.planning.collectives import arrays, collectives
from igrpo_jax.types import Batch
from jobs.parts import make_learner
from models.presets import PRESETS

P, G, L, T, SLOTS = 8, 3, 40, 20, 74
"""No product of these numbers is the size of a weight."""

MODEL = replace(PRESETS["tiny"], layers=3)


@pytest.fixture(scope="module", params=["8x1", "4x2", "2x4", "2x2x2", "8x1 packed", "2x4 packed"])
def compiled(request, make_layout):
    """Mesh, learner, and the HLO of the gradient of a micro-batch."""
    jax.config.update("jax_disable_most_optimizations", True)
    mesh, _, packed = request.param.partition(" ")
    layout = make_layout(mesh)
    with layout.active():
        config = launch.load_config("smoke.py")
        config = replace(config, train=replace(config.train, logprob_chunk=15))  # four chunks and more
        learner = make_learner(config, layout, MODEL)
        ones = lambda *shape: np.ones(shape, np.float32)
        lengths = np.full((P, G), T // 2 if packed else T, np.int32)
        batch = Batch(lengths, ones(P, G), weights=ones(P, G, T))
        part = Completions(
            np.ones((P, L), np.int32), np.full(P, L, np.int32), np.ones((P, G, T), np.int32), batch, ones(P, G, T),
            pack(np.full(P, L), lengths, Shape(L, T, SLOTS if packed else L + G * T)),
        )  # fmt: skip
        program = learner.gradient_program(part, several=True).lower().compile()
    jax.config.update("jax_disable_most_optimizations", False)
    return mesh, learner, program


def test_state_is_split_over_fsdp_and_tensor(compiled):
    mesh, learner, _ = compiled
    ways = int(np.prod([int(n) for n in mesh.split("x")[-2:]]))
    whole = held = 0
    state: TrainState = learner.placed
    for leaf in jax.tree.leaves(state):
        whole += leaf.size
        held += int(np.prod(leaf.sharding.shard_shape(leaf.shape)))
    # Norms have one axis, the width, which tensor does not split.
    assert whole / ways <= held < 1.05 * whole / ways


def test_only_weights_and_gradients_are_sent_and_never_logits(compiled):
    mesh, learner, program = compiled
    tensor = int(mesh.split("x")[-1])
    shapes = [leaf.shape for leaf in jax.tree.leaves(learner.placed.params)]
    weights = {int(np.prod(s)) for s in shapes} | {int(np.prod(s[1:])) for s in shapes if s[0] == MODEL.layers}
    parts = {size // ways for size in weights for ways in (1, 2, 4, 8) if size % ways == 0}
    found, _ = collectives(program.as_text())
    assert any(one.kind == "all-gather" for one in found)
    width = MODEL.width
    for one in found:
        for count, _ in arrays(one.text):
            # Tensor parallelism adds up partial sums of a device's own rows; nothing else but weights is larger than a
            # number a row.
            rows = P * (L + G * T) * width * tensor // 8
            allowed = count in parts or count <= P * G * T * 2 or (tensor > 1 and count <= rows)
            assert allowed, f"{mesh}: {one.text[:200]}"


def test_the_head_and_its_gradient_are_sent_once_and_not_with_every_chunk(compiled):
    mesh, _, program = compiled
    found, unknown = collectives(program.as_text())
    size = MODEL.vocab_size * MODEL.width // int(mesh.split("x")[-1])
    sent = [one for one in found if size in [count for count, _ in arrays(one.text)]]
    assert sent and unknown == 0
    assert [one.turns for one in sent] == [1] * len(sent)
