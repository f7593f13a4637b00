"""From a source to a policy: random weights, the same on every mesh; directories; names that do not exist."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from models.formats.load import load, preset, random_policy, read_config
from models.formats.tokenizer import byte_tokenizer
from models.formats.weights import abstract, export, leaves
from models.presets import PRESETS

GOLDEN = Path(__file__).parents[2] / "golden"

pytestmark = pytest.mark.usefixtures("quick_compile")


def arrays(policy):
    return {leaf.path: np.asarray(leaf.array) for leaf in leaves(policy)}


def test_random_weights_are_the_same_on_every_mesh(make_layout):
    loaded = load("random:tiny", seed=3)
    assert (loaded.stop_ids, loaded.directory) == ([257], None)
    assert loaded.tokenizer.encode("a") == [97] and loaded.policy.config == PRESETS["tiny"]
    alone = arrays(loaded.policy)
    assert 0.019 < alone["layers.gate"].std() < 0.021 and (alone["norm"] == 1).all()
    for mesh in ("8x1", "2x4"):
        layout = make_layout(mesh)
        policy = load("random:tiny", seed=3, shardings=layout.train_shardings, remat="none").policy
        assert len({str(shard.index) for shard in policy.layers.gate[...].addressable_shards}) == 8
        assert policy.remat == "none"
        for path, value in arrays(policy).items():
            np.testing.assert_array_equal(value, alone[path], err_msg=path)
    assert (arrays(random_policy(PRESETS["tiny"], seed=4))["layers.gate"] != alone["layers.gate"]).all()


def test_presets_have_the_sizes_they_are_named_for():
    counts = {name: sum(leaf.array.size for leaf in leaves(abstract(config))) for name, config in PRESETS.items()}
    assert counts == {
        "tiny": 132_416,
        "qwen2.5-0.5b": 494_032_768,
        "qwen2.5-1.5b": 1_543_714_304,
        "qwen2-7b": 7_615_616_512,
        "qwen2-14b": 14_770_033_664,
        "qwen2-32b": 32_763_876_352,
        "llama3-70b": 70_553_706_496,
    }


def test_unknown_presets_name_the_nearest():
    with pytest.raises(ValueError, match=r"random:tinny is unknown; did you mean random:tiny\?"):
        load("random:tinny")
    with pytest.raises(ValueError, match=r"did you mean random:qwen2\.5-0\.5b"):
        preset("qwen2.5-0.6b")
    with pytest.raises(ValueError, match=r"random: is unknown"):
        load("random:")


def test_unknown_sources_say_what_there_is():
    with pytest.raises(
        ValueError, match=r"is no directory; did you mean random:tiny\?; a source is .* or random:<preset>"
    ):
        load("rnadom:tiny")


def test_a_directory_gives_everything(tmp_path):
    directory = tmp_path / "model"
    config = replace(PRESETS["tiny"], family="qwen2", qkv_bias=True)
    export(random_policy(config), directory, tokenizer=byte_tokenizer())
    (directory / "generation_config.json").write_text('{"eos_token_id": [3]}')
    loaded = load(str(directory))
    assert (loaded.stop_ids, loaded.directory, loaded.policy.remat) == ([3, 257], directory, "full")
    assert loaded.policy.layers.query_bias[...].shape == (2, 8, 16)
    assert loaded.policy.embed[...].devices() == {jax.devices()[0]}


def test_errors_of_a_config_name_its_directory(tmp_path):
    config = json.loads((GOLDEN / "qwen2" / "config.json").read_text()) | {"hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"{tmp_path.name}: config\.json: hidden_act = 'gelu' is not implemented"):
        read_config(tmp_path)
