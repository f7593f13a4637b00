"""Config files and reward functions of the user's own: found by path, mistakes named by file and line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from igrpo_jax.config import (
    AlgorithmConfig,
    Config,
    DataConfig,
    OptimConfig,
    PromptConfig,
    RewardConfig,
    TrainConfig,
    to_dict,
)
from igrpo_jax.edges import user_code
from igrpo_jax.edges.user_code import load_config, path_of, run_file
from igrpo_jax.rewards import load_rewards

HEAD = "from igrpo_jax.config import *\n\ndef get_config():\n    return "


@pytest.fixture(autouse=True)
def same_modules(monkeypatch):
    """What a test's files add to `sys.path` and `sys.modules` ends with it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith("/tmp"):
            del sys.modules[name]


def config(tmp_path, text, name="mine.py"):
    (tmp_path / name).write_text(text)
    return load_config(str(tmp_path / name), tmp_path)


MISTAKES = [
    ("Config(train=TrainConfig(stepz=3))", ", line 4: there is no field 'stepz'; did you mean 'steps'?"),
    ("Config(trian=TrainConfig())", ", line 4: there is no field 'trian'; did you mean 'train'?"),
    ("Config(train=TrainConfig(qqqqq=3))", ", line 4: there is no field 'qqqqq'; see --help"),
    ("Config(train=TrainConfig(steps=1 / 0))", ", line 4: ZeroDivisionError: division by zero"),
    ("Config(3)", ", line 4: TypeError: "),
    ("Config(", ", line 4: '(' was never closed: return Config("),
    ("None", ": get_config() returned nothing; end it with `return Config(...)`"),
    ("Config", ": get_config() returned type; end it with"),
    ("Config(reward=RewardConfig(functions='accuracy'))", ": reward.functions is 'accuracy'; it must be a tuple"),
    ("Config(reward=RewardConfig(weights=(1, '2')))", ": reward.weights is (1, '2'); it must be a tuple"),
    ("Config(train=dict(steps=3))", ": train is {'steps': 3}; it must be a TrainConfig(...)"),
    ("Config(train=TrainConfig)", ": train is <class 'igrpo_jax.config.training.TrainConfig'>; it must be a"),
    ("Config(train=TrainConfig(steps=2.5))", ": train.steps is 2.5; it must be a whole number"),
    ("Config(train=TrainConfig(steps=True))", ": train.steps is True; it must be a whole number"),
    ("Config(optim=OptimConfig(learning_rate='1e-6'))", ": optim.learning_rate is '1e-6'; it must be a number"),
    ("Config(algorithm=AlgorithmConfig(loss_type='grop'))", ": algorithm.loss_type is 'grop'; it must be one of grpo"),
    ("Config(algorithm=AlgorithmConfig(epsilon_high='x'))", ": algorithm.epsilon_high is 'x'; it must be a number or"),
    ("Config(algorithm=AlgorithmConfig(scale_rewards='no'))", ": algorithm.scale_rewards is 'no'; it must be one of"),
    ("Config(prompt=PromptConfig(system=None))", ": prompt.system is None; it must be text"),
    (r"Config(prompt=PromptConfig(system='\ud83d'))", r": prompt.system is '\ud83d', which holds half a character"),
]  # fmt: skip

PRINTED = """
import json, sys
from pathlib import Path
from igrpo_jax.edges.user_code import load_config
for name in json.load(sys.stdin):
    try:
        print("read", load_config(name, Path(".")))
    except ValueError as error:
        print(error)
"""


def said_of(bodies, folder):
    """What is said of config files that return these, and the files.

    In another process: in this one dataclasses check their types themselves.
    """
    paths = [folder / f"c{number}.py" for number in range(len(bodies))]
    for path, body in zip(paths, bodies, strict=True):
        path.write_text(HEAD + body)
    names, root = json.dumps([str(path) for path in paths]), Path(user_code.__file__).parents[2]
    command = [sys.executable, "-c", PRINTED]
    done = subprocess.run(command, input=names, capture_output=True, text=True, cwd=root, check=True)
    said = done.stdout.splitlines()
    assert not done.stderr and len(said) == len(paths)
    return said, paths


def test_what_scale_rewards_once_was_is_read_as_what_it_is_now(tmp_path):
    bodies = [f"Config(algorithm=AlgorithmConfig(scale_rewards={value}))" for value in ("True", "False", "'batch'")]
    said, _ = said_of(bodies, tmp_path)
    assert [line.partition("scale_rewards=")[2].split("'")[1] for line in said] == ["group", "none", "batch"]


def test_mistakes_are_one_line_with_the_file(tmp_path):
    said, paths = said_of([body for body, _ in MISTAKES], tmp_path)
    wanted = [f"{path}{phrase}" for path, (_, phrase) in zip(paths, MISTAKES, strict=True)]
    assert [line[: len(start)] for line, start in zip(said, wanted, strict=True)] == wanted


def test_the_line_is_the_files_own_where_a_library_raises(tmp_path):
    with pytest.raises(ValueError, match=r"mine.py, line 2: JSONDecodeError: Expecting value"):
        config(tmp_path, "import json\njson.loads('x')\n")


def test_a_mistake_in_a_neighbor_names_the_neighbor(tmp_path):
    (tmp_path / "beside_it.py").write_text("x = (\n")
    with pytest.raises(ValueError, match=r"beside_it.py, line 1: '\(' was never closed"):
        config(tmp_path, "import beside_it\n")


def test_right_values_pass(tmp_path):
    body = "Config(seed=1, train=TrainConfig(steps=3), optim=OptimConfig(learning_rate=1.0))"
    wanted = Config(seed=1, train=TrainConfig(steps=3), optim=OptimConfig(learning_rate=1.0))
    assert config(tmp_path, HEAD + body) == wanted
    assert load_config("mine", tmp_path) == load_config("mine.py", tmp_path) == wanted


def test_modules_beside_a_config_are_importable_and_hide_no_others(tmp_path):
    (tmp_path / "rewards_beside.py").write_text("def one(prompts, completions, **k):\n    return [1] * len(prompts)\n")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('not the one of the library')\n")
    text = "import rewards_beside, colorsys\n" + HEAD + "Config(reward=RewardConfig(functions=('rewards_beside:one',)))"
    with load_rewards(config(tmp_path, text).reward) as rewards:
        assert rewards.score([""], ["a"], {}).total == 1


def test_a_config_may_define_classes_and_its_own_rewards(tmp_path):
    text = (
        "from __future__ import annotations\nimport dataclasses\nfrom igrpo_jax.config import *\n"
        "@dataclasses.dataclass\nclass Words:\n    size: int\n"
        "def long(completions, **k):\n    return [len(c) > Words(2).size for c in completions]\n"
        "def get_config():\n    return Config(reward=RewardConfig(functions=(f'{__file__}:long',)))\n"
    )
    with load_rewards(config(tmp_path, text, "v1.2.py").reward) as rewards:
        scores = rewards.score(["", ""], ["abc", "a"], {})
    assert list(scores.each) == ["long"] and scores.total.tolist() == [1, 0]


def test_rewards_by_path_from_here_from_home_and_from_beside_the_config(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "json.py").write_text("def two(completions, **k):\n    return [2.0] * len(completions)\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config(tmp_path, HEAD + "Config()")
    for place in ("own/json.py", "~/own/json.py", f"{tmp_path}/own/json.py"):
        with load_rewards(RewardConfig(functions=(f"{place}:two",))) as rewards:
            assert rewards.score([""], ["a"], {}).total == 2
    monkeypatch.chdir("/")
    with load_rewards(RewardConfig(functions=("own/json.py:two",))) as rewards:
        assert rewards.score([""], ["a"], {}).total == 2
    assert sys.modules["json"].dumps


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:two", r"reward 'nowhere.py:two': there is no file .*/nowhere.py; write its path from here"),
        ("own.py:three", r"reward 'own.py:three': own.py has no 'three'; its functions are two"),
        ("bad.py:two", r"reward 'bad.py:two': .*/bad.py, line 2: NameError: name 'nothing' is not defined"),
    ],
)
def test_bad_reward_files_name_the_fix(tmp_path, monkeypatch, name, message):
    (tmp_path / "own.py").write_text("def two(completions, **k):\n    return [2.0] * len(completions)\n")
    (tmp_path / "bad.py").write_text("x = 1\nnothing\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_rewards(RewardConfig(functions=(name,)))


def test_home_directories(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(path_of("~/runs/x")) == "/home/me/runs/x" and str(path_of("runs/~x")) == "runs/~x"
    with pytest.raises(ValueError, match="~nobody_at_all/x begins with the home directory of nobody"):
        path_of("~nobody_at_all/x")


def test_other_files_are_not_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config.json is no Python file"):
        run_file(tmp_path / "config.json")


def test_the_config_that_a_run_has_recorded_is_a_config_file(tmp_path):
    mine = Config(
        seed=3,
        data=DataConfig(eval=("file:a", "file:b")),
        prompt=PromptConfig(chat_template_kwargs={"enable_thinking": False}),
        algorithm=AlgorithmConfig(beta=0.25, epsilon_high=0.28),
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": to_dict(mine), "architecture": {}, "beside": str(tmp_path / "beside")}))
    assert load_config(str(path), tmp_path) == mine
    assert sys.path[-1] == str(tmp_path / "beside")
    older = to_dict(mine)
    del older["algorithm"]["epsilon_high"], older["eval"]
    path.write_text(json.dumps({"config": older}))
    assert load_config(str(path), tmp_path).algorithm == AlgorithmConfig(beta=0.25)
    older["algorithm"]["num_draft"] = 3
    path.write_text(json.dumps({"config": older}))
    with pytest.raises(
        ValueError, match=r"config.json: there is no field 'algorithm.num_draft'; did you mean 'algorith"
    ):
        load_config(str(path), tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_type": "qwen2"}', '{"config": 3}', '{"config": {}}', "\xff"])
def test_other_json_is_no_config(text, tmp_path):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(
        ValueError, match=r"config.json is not that of a run; name a config file, or the config.json of"
    ):
        load_config(str(tmp_path / "config.json"), tmp_path)
