"""`--job plan` on simulated devices: bytes known exactly, traffic read from the HLO, and what is said without room."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import pytest

import launch
from igrpo_jax.planning import plan as planning
from igrpo_jax.planning.collectives import collectives, traffic
from igrpo_jax.planning.dry import Compiled
from igrpo_jax.planning.fitting import fitting, roomier, smaller
from igrpo_jax.planning.plan import Chip, Phase, Plan
from models.formats.load import architecture
from models.presets import PRESETS
from sharding import topology
from sharding.chips import CHIPS

HLO = """
HloModule jit_step

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %w = bf16[64,128]{1,0} all-gather(%v), channel_id=1, dimensions={0}
  ROOT %r = (s32[], f32[8,4]) tuple(%i, %x)
}

%endless (p: s32[]) -> s32[] {
  %y = f32[16]{0} collective-permute(%z), channel_id=3
  ROOT %q = s32[] copy(%p)
}

%unrolled (p: (f32[8,4], u32[])) -> (f32[8,4], u32[]) {
  %by = u32[] constant(2)
  %at = u32[] get-tuple-element(%p), index=1
  %w = f32[4]{0} collective-permute-start(%x), channel_id=5
  %next = u32[]{:T(128)} add(%at, %by), metadata={op_name="jit(f)/while"}
  ROOT %r = (f32[8,4], u32[]) tuple(%x, %next)
}

%four (p: (f32[8,4], u32[])) -> pred[] {
  %end = u32[] constant(4)
  %now = u32[] get-tuple-element(%p), index=1
  ROOT %lt = pred[]{:T(512)} compare(%now, %end), direction=LT
}

%below (p: s32[]) -> pred[] {
  %limit = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[] compare(%p, %limit), direction=LT
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %loop = (s32[], f32[8,4]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"28"}}
  %other = s32[] while(%u), condition=%cond, body=%endless
  %third = s32[] while(%u), condition=%below, body=%endless
  %fourth = (f32[8,4], u32[]) while(%v), condition=%four, body=%unrolled
  %start = (f32[10]{0}, f32[80]{0}) all-gather-start(%g), channel_id=4
  %done = f32[80]{0} all-gather-done(%start)
  ROOT %total = f32[8,4]{1,0} all-reduce(%h), channel_id=2, to_apply=%add
}
"""


def test_traffic_counts_loops_by_their_turns():
    found, unknown = collectives(HLO)
    assert [(one.kind, one.bytes, one.turns) for one in found] == [
        ("all-gather", 64 * 128 * 2, 28), ("collective-permute", 64, 1), ("collective-permute", 64, 7),
        ("collective-permute", 16, 2), ("all-gather", 320, 1), ("all-reduce", 128, 1),
    ]  # fmt: skip
    assert unknown == 1
    assert traffic(HLO)[0] == {"all-gather": 64 * 128 * 2 * 28 + 320, "collective-permute": 544, "all-reduce": 256}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("plan")
    jax.config.update("jax_disable_most_optimizations", True)
    assert launch.main(["--job", "plan", "--config", "smoke.py", "--mesh", "8x1", "--workdir", str(workdir)]) == 0
    jax.config.update("jax_disable_most_optimizations", False)
    return json.loads((workdir / "plan.json").read_text())


def test_state_and_caches_are_known_to_the_byte(planned):
    parameters = sum(x.size for x in jax.tree.leaves(launch_abstract()))
    shards = planned["held_bytes"]
    # Every weight of this model has a width, which eight devices divide, but Adam's count is a number of its own.
    assert shards["parameters"] == shards["gradients"] == 4 * parameters / 8
    assert shards["moments"] == 2 * shards["parameters"] + 4
    assert shards["sampling view"] == 4 * parameters
    config, model = launch.load_config("smoke.py"), PRESETS["tiny"]
    token = 2 * model.layers * model.kv_heads * model.head_dim * 4
    prompt = config.prompt.max_prompt_length + config.prompt.max_draft_length + 128
    assert shards["prefixes"] == token * prompt * (8 * 2 // 8) + 4 * (8 * 2 // 8)
    assert shards["own caches"] == token * config.sampling.max_completion_length * (8 * 4 // 8) + 4


def launch_abstract():
    from models.formats.load import abstract

    return abstract(PRESETS["tiny"], remat="full")


def test_every_program_is_compiled_and_weighed(planned):
    programs = {program["name"]: program for program in planned["programs"]}
    assert {"sampling view", "prefill", "admit", "decode", "gradient", "optimizer"} <= set(programs)
    assert all(not program["refused"] for program in planned["programs"])
    assert all(programs[name]["temporary"] > 0 for name in ("prefill", "decode", "gradient"))
    for name, held in planned["peak_bytes"].items():
        assert held > planned["held_bytes"]["parameters"] + planned["held_bytes"]["moments"], name
    assert "fits" not in planned  # this machine's devices have no data sheet


def test_only_weights_and_gradients_travel_far(planned):
    programs = {program["name"]: program for program in planned["programs"]}
    parameters = planned["held_bytes"]["parameters"] * 8
    gradient = sum(programs["gradient"]["traffic"].values())
    assert programs["gradient"]["traffic"]["all-gather"] > 0
    # Forward and backward gather every weight, the head more often, and gradients are reduced once.
    assert parameters < gradient < 12 * parameters
    # Decoding moves less than a kilobyte: whether anyone goes on.
    assert sum(programs["decode"]["traffic"].values()) < 1024


@pytest.mark.parametrize(("package", "topology"), [("libtpu", "v5e:2x4"), ("jax_cuda12_plugin", "a100-80gb:8")])
def test_programs_compile_for_accelerators_that_are_not_here(package, topology, tmp_path):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install '.[plan-tpu,plan-cuda]'")
    # In a process of its own, for compilers take over signals; of a length that attention has a kernel for.
    command = [sys.executable, "launch.py", "--job", "plan", "--config", "smoke.py", "--mesh", "4x2", "--topology",
               topology, "--sampling.max-completion-length", "256", "--workdir", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "plan.json").read_text())
    programs = {program["name"]: program for program in found["programs"]}
    assert found["fits"] and {"prefill", "decode", "gradient"} <= set(programs)
    assert any("tpu_custom_call" in name or "fmha" in name for name in programs["gradient"]["kernels"])


def test_a_topology_that_is_tried_again_has_the_same_devices(monkeypatch):
    monkeypatch.setattr(topology, "_tpu", lambda name, shape: [object()])
    assert topology.find_target("v6e:2x2").devices is topology.find_target("v6e:2x2").devices
    topology._devices.cache_clear()


def test_known_models_are_planned_without_the_hub():
    assert architecture("hf:nvidia/OpenReasoning-Nemotron-7B@main") == PRESETS["qwen2-7b"]
    assert architecture("random:tiny") == PRESETS["tiny"]


CHIP = Chip(memory=100.0, flops=10.0, bandwidth=5.0, link=2.0)


def made(update: int, decode: int = 50, refused: str = "") -> Plan:
    phases = {"decode": Phase(decode, 20, 30, 4), "update": Phase(update, 70, 10, 2)}
    held = {"parameters": 5, "moments": 10, "gradients": 5, "sampling view": 20, "prefixes": 10, "own caches": 10}
    return Plan(held, [Compiled("gradient", refused=refused)], phases, devices=8, rows=32, steps=10, tokens=900)


def test_seconds_are_those_of_the_slowest_resource():
    assert made(60).step_seconds(CHIP) == {"decode": 6.0, "update": 7.0}
    assert made(60).phases["decode"].seconds(CHIP) == {"compute": 2.0, "memory": 6.0, "links": 2.0}
    assert planning.summary(made(60), CHIP)["tokens_per_s_at_best"] == pytest.approx(900 / 13)


def test_what_does_not_fit_is_made_smaller_until_it_does():
    config = launch.load_config("aime.py")
    config = replace(config, train=replace(config.train, micro_batch=8), model=replace(config.model, remat="dots"))
    sizes = {("dots", 8): 150, ("full", 8): 120, ("full", 4): 90, ("full", 2): 40}
    make = lambda c, growth, tensor: ("", made(sizes[c.model.remat, c.train.micro_batch]))
    found, said = fitting(config, make, CHIP, 1)
    assert found.peak == 150 and not found.fits(CHIP)
    assert [line.partition(":")[0] for line in said] == ["--model.remat full", "--train.micro-batch 4"]
    assert "fits" in said[-1] and "does not fit" in said[0]
    assert fitting(config, lambda *_: ("", made(95)), CHIP, 1)[1] == []
    assert not made(10, refused="Used 17G of 16G").fits(CHIP)


def test_a_state_that_does_not_fit_gets_more_devices():
    large = made(10, refused="Used 170 of 100")
    large = large._replace(held=large.held | {"parameters": 40, "moments": 80, "gradients": 40, "sampling view": 160})
    assert roomier(large, CHIP, 1)[:2] == [(4, 4), (4, 8)]
    asked = []

    def make(config, growth, tensor):
        asked.append((growth, tensor))
        if (growth, tensor) == (4, 4):
            raise ValueError("kv_heads axis of 2 is not divisible by 4")
        return f"--mesh {8 * growth // (tensor or 1)}x{tensor}", large if growth == 1 else made(60)

    _, said = fitting(launch.load_config("aime.py"), make, CHIP, 1)
    assert asked == [(1, None), (4, 4), (4, 8)]
    assert "not divisible" in said[0] and said[1] == "--mesh 4x8: fits, 0.0 GB"

    sizes = iter([large, made(120), made(10, decode=120), made(60)])
    _, said = fitting(launch.load_config("aime.py"), lambda *_: ("--mesh 8x4", next(sizes)), CHIP, 1)
    assert said == [
        "--mesh 8x4: does not fit, 0.0 GB", "--mesh 8x4 --train.micro-batch 1: does not fit, 0.0 GB",
        "--mesh 8x4 --train.micro-batch 1 --sampling.rows 4: fits, 0.0 GB",
    ]  # fmt: skip


def test_sampling_that_does_not_fit_gets_fewer_rows():
    changes = smaller(launch.load_config("aime.py"), made(10, decode=150))
    assert [change for change, _ in changes] == [f"--sampling.rows {n}" for n in (16, 8, 4, 2)]
    viewing = made(10)
    viewing = viewing._replace(phases=viewing.phases | {"view": Phase(200, 0, 1, 1)})
    assert smaller(launch.load_config("aime.py"), viewing) == []


@pytest.mark.parametrize(
    ("fsdp", "tensor", "link"), [(8, 1, 450e9), (2, 4, 450e9), (16, 1, 400e9), (8, 2, 200e9), (4, 16, 50e9)]
)
def test_nodes_hand_on_what_their_network_brings(fsdp, tensor, link):
    assert CHIPS["h100"].weights_link(fsdp, tensor) == link
    assert CHIPS["v5p"].weights_link(fsdp, tensor) == CHIPS["v5p"].link


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5q:2x2x2", "unknown; did you mean v5p?"),
        ("v5p", "write v5p:2x2x2"),
        ("a100-80gb:2x4", "write a100-80gb:8"),
        ("a100-80gb:12", "not whole nodes of 8"),
    ],
)
def test_bad_topologies_are_named(topology, message, capsys, tmp_path):
    arguments = ["--job", "plan", "--config", "smoke.py", "--topology", topology, "--workdir", str(tmp_path)]
    assert launch.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_mesh_must_have_the_topologys_devices(capsys, tmp_path):
    arguments = ["--job", "plan", "--config", "smoke.py", "--mesh", "3x1", "--workdir", str(tmp_path)]
    assert launch.main(arguments) == 2
    assert "--mesh 3x1 needs 3 devices and there are 8" in capsys.readouterr().err
