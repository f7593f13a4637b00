"""Whose directory it is."""

import json

import pytest

from igrpo_jax.config import Config, to_dict
from igrpo_jax.workdir import changed, claim
from models.config import DecoderConfig


def test_changed_lists_fields_that_differ():
    old, new = to_dict(Config(seed=0)), to_dict(Config(seed=1))
    assert changed(old, new) == ["seed: 0 -> 1"]


def test_claim_keeps_the_first_config_of_another_model(tmp_path):
    small = DecoderConfig(
        family="llama", vocab_size=8, width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, rope_theta=1.0,
        max_position=8, norm_eps=1e-5,
    )  # fmt: skip
    claim(tmp_path / "run", Config(), small)
    with pytest.raises(ValueError, match="another model"):
        claim(tmp_path / "run", Config(), DecoderConfig(**(vars(small) | {"width": 16})))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["architecture"]["width"] == 8
