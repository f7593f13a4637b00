"""The axis-rule table, and the layouts that follow from it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from igrpo_jax.config import SamplingConfig
from igrpo_jax.learning.logprobs import completion_logprobs
from igrpo_jax.sampling.programs import make_pool
from igrpo_jax.sampling.sampler import Sampler
from models import axes, decoder
from sharding import mesh as mesh_module
from sharding.rules import DECODE, TRAIN, partition, shardings


def spec(param):
    (sharding,) = jax.tree.leaves(param)
    return sharding.spec


@pytest.fixture(scope="module")
def layout(make_layout):
    return make_layout("4x2")


def test_tables_name_every_axis_and_only_mesh_axes():
    for table in (TRAIN, DECODE):
        assert tuple(table) == axes.AXES
        used = {a for target in table.values() for a in ((target,) if isinstance(target, str) else target or ())}
        assert used <= set(mesh_module.AXES)


@pytest.mark.parametrize(
    ("names", "shape", "table", "spec"),
    [
        (("layers", "embed", "heads", "head_dim"), (3, 8, 4, 5), TRAIN, (None, "fsdp", "tensor", None)),
        (("layers", "embed", "heads", "head_dim"), (3, 8, 4, 5), DECODE, (None, None, "tensor", None)),
        (("embed", "kv_heads", "head_dim"), (8, 3, 5), TRAIN, ("fsdp", None, None)),  # 3 heads on 2 places: replicated
        (("embed", "heads", "head_dim"), (8, 9, 5), TRAIN, ("fsdp", None, None)),
        (("vocab", "embed"), (10, 12), TRAIN, ("tensor", "fsdp")),
        (("vocab", "embed"), (11, 12), TRAIN, (None, "fsdp")),  # whole beside its padded parts: one array in two forms
        (("batch", None, None), (8, 7, 5), TRAIN, (("data", "fsdp"), None, None)),
        ((), (), TRAIN, ()),
    ],
)
def test_partition(layout, names, shape, table, spec):
    assert partition(names, shape, layout.mesh, table) == PartitionSpec(*spec)


@pytest.mark.parametrize(
    ("names", "shape", "message"),
    [
        (("embed", "mlp"), (8, 7), r"gate: its mlp axis of 7 is not divisible by 2, the mesh's tensor; choose a mesh"),
        (("embed",), (6,), "gate: its embed axis of 6 is not divisible by 4, the mesh's fsdp"),
        (("batch", None), (6, 8), "gate: its batch axis of 6 is not divisible by 4, the mesh's data x fsdp"),
    ],
)
def test_an_axis_that_the_mesh_does_not_divide(layout, names, shape, message):
    with pytest.raises(ValueError, match=message):
        partition(names, shape, layout.mesh, TRAIN, "gate")


def test_a_weight_that_does_not_fit_is_named(make_policy, layout):
    policy = jax.eval_shape(lambda: make_policy(mlp=47))
    with pytest.raises(ValueError, match=r"layers.down: its mlp axis of 47 is not divisible by 2, the mesh's tensor"):
        layout.train_shardings(policy)


@pytest.mark.parametrize(
    ("sizes", "mesh", "meshes"),
    [
        ({"mlp": 47}, "4x2", "--mesh 8x1 or --mesh 2x4x1 or --mesh 4x2x1"),
        ({"width": 36}, "8x1", "--mesh 2x4x1 or --mesh 4x2x1 or --mesh 8x1x1"),
        ({"width": 35, "mlp": 46}, "8x1", "--mesh 8x1x1 or --mesh 4x1x2"),
        ({"width": 36, "mlp": 46}, "8x1", "--mesh 2x4x1 or --mesh 4x2x1 or --mesh 8x1x1"),
        ({"width": 36, "mlp": 46}, "2x4", "--mesh 4x2 or --mesh 2x2x2"),
    ],
)
def test_meshes_that_would_do_are_named(make_policy, make_layout, sizes, mesh, meshes):
    policy = jax.eval_shape(lambda: make_policy(**sizes))
    with pytest.raises(ValueError) as raised:
        make_layout(mesh).train_shardings(policy)
    said = str(raised.value)
    assert f"; of 8 devices that is {meshes}" in said
    for text in re.findall(r"--mesh (\S+)", said):
        make_layout(text).train_shardings(policy)


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize(("mesh", "tied"), [("1x8", True), ("2x2x2", False)])
def test_a_vocabulary_that_the_mesh_does_not_divide_changes_no_result(make_policy, make_layout, mesh, tied):
    """271 tokens on eight or two tensor places: log-probabilities, gradients and drawn tokens."""
    policy, random = make_policy(vocab_size=271, layers=1, tied=tied), np.random.default_rng(0)
    prompts, tokens = random.integers(271, size=(4, 5)), random.integers(271, size=(4, 2, 6))
    settings = SamplingConfig(max_completion_length=6, temperature=1.0)

    def results(layout):
        def loss(policy, prompts, lengths, tokens):
            found = completion_logprobs(
                decoder, policy, prompts, lengths, tokens, temperature=jnp.float32(1), chunk=4,
                shards=layout.num_row_shards,
            )  # fmt: skip
            return found.logprobs.sum() + 0 * found.entropy.sum(), found

        placed = layout.train_shardings(policy)
        given = layout.rows((prompts.astype(np.int32), np.full(4, 5, np.int32), tokens.astype(np.int32)))
        with layout.active():
            there = jax.device_put(policy, placed)
            step = jax.jit(jax.value_and_grad(loss, has_aux=True), out_shardings=(None, placed))
            (_, found), gradient = step(there, *given)
            view = jax.jit(lambda p: decoder.sampling_view(p, "float32"))(there)
            pool = make_pool(rows=0, problems=4, groups=[2], shards=layout.num_row_shards, prompts=(5,),
                             max_completion_length=6)  # fmt: skip
            sampler = Sampler(decoder, layout, pool=pool, seed=1, stop_ids=[0], decode=str)
            drawn = sampler.complete(
                view, prompts.tolist(), ids=range(4), step=0, stage=1, num_samples=2, settings=settings
            )
        return layout.fetch((found, jax.tree.leaves(gradient))), drawn

    (alone, drawn_alone), (found, drawn) = results(make_layout("1x1")), results(make_layout(mesh))
    for here, there in zip(jax.tree.leaves(alone), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(there, here, rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(drawn.tokens, drawn_alone.tokens)
    assert drawn.tokens.max() > 255 or drawn.lengths.sum() > 8


def test_the_whole_train_state_follows_the_table(policy, layout):
    moments = jax.eval_shape(optax.scale_by_adam().init, policy)
    placed = shardings((policy, moments), layout.mesh, TRAIN)
    for tree in (placed[0], placed[1].mu, placed[1].nu):
        assert spec(tree.layers.query) == PartitionSpec(None, "fsdp", "tensor", None)
        assert spec(tree.layers.down) == PartitionSpec(None, "tensor", "fsdp")
        assert spec(tree.embed) == PartitionSpec("tensor", "fsdp")
        assert spec(tree.norm) == PartitionSpec("fsdp")
    assert placed[1].count.spec == PartitionSpec()
    assert jax.tree.structure(placed) == jax.tree.structure((policy, moments))


def test_a_sampling_view_is_whole_on_every_fsdp_place(policy, layout):
    view = layout.decode_shardings(jax.eval_shape(lambda p: decoder.sampling_view(p, "float32"), policy))
    assert spec(view.layers[1].query) == PartitionSpec("tensor", None, None)
    assert spec(view.layers[0].out) == PartitionSpec(None, "tensor", None)
    assert spec(view.head) == PartitionSpec("tensor", None)


@pytest.mark.parametrize(("text", "shards"), [("1x1", 1), ("8x1", 8), ("4x2", 4), ("2x2x2", 4), ("1x8", 1)])
def test_rows_are_split_over_data_and_fsdp(make_layout, text, shards):
    layout = make_layout(text)
    assert layout.num_row_shards == shards
    placed = layout.rows({"x": np.zeros((3, 8, 2))}, axis=1)["x"]
    assert {s.data.shape for s in placed.addressable_shards} == {(3, 8 // shards, 2)}
    assert {s.data.shape for s in layout.everywhere(np.zeros((3, 8))).addressable_shards} == {(3, 8)}
    assert placed.sharding == NamedSharding(layout.mesh, PartitionSpec(None, ("data", "fsdp")))


def test_activations_are_pinned_only_while_a_layout_is_active(layout):
    x = jnp.zeros((8, 3))
    assert axes.constrain(x, "batch", None) is x
    with layout.active():
        pinned = jax.jit(lambda x: axes.constrain(x + 1, "batch", None))(x)
        with pytest.raises(ValueError, match="activation: its batch axis of 6 is not divisible by 4"):
            jax.jit(lambda x: axes.constrain(x, "batch", None))(x[:6])
    assert pinned.sharding.is_equivalent_to(layout.rows(np.zeros((8, 3))).sharding, 2)
    assert axes.constrain(x, "batch", None) is x


@pytest.mark.usefixtures("quick_compile")
def test_fsdp_gathers_weights_and_never_moves_activations(policy, make_layout):
    """Whether numbers agree says nothing here: without pinned activations XLA all-reduces them over the whole batch."""
    layout = make_layout("8x1")

    def loss(policy, tokens, lengths):
        return (decoder.prefill(policy, tokens, lengths)[0] ** 2).sum()

    tokens, lengths = layout.rows((np.ones((8, 17), np.int32), np.full(8, 17, np.int32)))
    placed = layout.train_shardings(policy)
    with layout.active():
        grad = jax.jit(jax.grad(loss), in_shardings=(placed, None, None), out_shardings=placed)
        text = grad.lower(policy, tokens, lengths).compile().as_text()
    moved = re.findall(r"= (.*) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\(", text)
    assert {"all-gather", "all-reduce"} <= {kind for _, kind in moved}
    assert not [shape for shape, _ in moved if re.search(r"\b17\b", shape)]
