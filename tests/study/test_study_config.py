"""What a study file may say, and how many steps its arms get."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import launch
from igrpo_jax.config import Config, TrainConfig
from igrpo_jax.edges.user_code import made_by, overridden, run_file
from igrpo_jax.study.budget import limited
from igrpo_jax.study.config import Arm, Study, arms_named, check_study

STUDIES = sorted(
    path for path in (Path(launch.__file__).parent / "configs" / "studies").glob("*.py") if path.stem != "__init__"
)
BASE = Config(train=TrainConfig(steps=30, problems_per_step=16))
GRPO = {"algorithm.num_drafts": 0, "algorithm.num_generations": 8}


def forced(made, **values):
    """The same with values that a user's file may hold; in tests dataclasses would look at their types."""
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def study(**changes):
    arms = {"igrpo": Arm(), "grpo": Arm(overrides=GRPO)}
    return forced(Study(title="t", config=BASE, arms=arms, baseline="grpo"), **changes)


def shipped(path) -> Study:
    return made_by(run_file(path), path, "get_study", Study)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_and_says_how_to_run_it(path):
    made = shipped(path)
    steps = {config.train.steps for config in check_study(made).values()}
    assert len(steps) == 1  # of equal sampled completions, or of equal problems
    assert f"python launch.py --job compare --config studies/{path.name}" in path.read_text()
    assert len(made.seeds) >= 2
    twin = path.with_name(f"{path.stem}_cpu.py")
    if path.stem != "smoke" and not path.stem.endswith("_cpu"):
        assert shipped(twin).arms == made.arms and any(arm.paper for arm in made.arms.values())
        assert made.config.model.source == "hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
        assert len(made.config.data.eval) == 6


def test_the_papers_numbers_are_the_papers():
    found = {path.stem: shipped(path) for path in STUDIES}
    mean = lambda name: {arm: its.paper.get("eval/mean/avg") for arm, its in found[name].arms.items() if its.paper}
    assert mean("igrpo_vs_grpo") == {"grpo": 0.6829, "igrpo": 0.6987}
    assert list(mean("kl").values()) == [0.6987, 0.7023, 0.6931, 0.6991]
    assert list(mean("completions").values()) == [0.6779, 0.6987, 0.7017, 0.7033]
    losses = mean("losses")
    assert (losses["dapo"], losses["i-dapo"], losses["gspo"], losses["i-gspo"]) == (0.6974, 0.7093, 0.6920, 0.7031)


def test_a_study_is_a_config_too(tmp_path):
    text = (
        "from configs.smoke import get_config\nfrom igrpo_jax.study.config import *\nfrom dataclasses import replace\n"
    )
    text += "def get_study():\n    return Study(title='', config=replace(get_config(), seed=9), arms={}, baseline='')\n"
    (tmp_path / "mine.py").write_text(text)
    assert launch.load_config(str(tmp_path / "mine.py")).seed == 9
    (tmp_path / "bad.py").write_text("def get_study():\n    return 3\n")
    with pytest.raises(ValueError, match=r"bad.py: get_study\(\) made no study; end it with `return Study"):
        launch.load_config(str(tmp_path / "bad.py"))


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ("sampled_completions", {"grpo": 30, "igrpo": 30, "more": 10, "twice": 30}),
        ("problems", {"grpo": 30, "igrpo": 30, "more": 30, "twice": 30}),
        ("optimizer_steps", {"grpo": 30, "igrpo": 30, "more": 30, "twice": 15}),
        ("trained_tokens", {"grpo": 30, "igrpo": 30, "more": 10, "twice": 30}),  # for a start
    ],
)
def test_the_budget_decides_how_many_steps_an_arm_takes(budget, steps):
    arms = {
        "grpo": Arm(overrides=GRPO),
        "igrpo": Arm(),
        "more": Arm(overrides={"algorithm.num_drafts": 16, "algorithm.num_generations": 4, "algorithm.rounds": 2}),
        "twice": Arm(overrides={"algorithm.num_iterations": 2}),
    }
    configs = check_study(study(arms=arms, budget=budget))
    assert {name: config.train.steps for name, config in configs.items()} == steps


def test_what_is_measured_becomes_a_limit():
    train = [limited(BASE, budget, 12345.6).train for budget in ("sampled_tokens", "trained_tokens", "seconds")]
    assert [one.max_sampled_tokens for one in train] == [12346, 0, 0]
    assert [one.max_trained_tokens for one in train] == [0, 12346, 0]
    assert [one.max_seconds for one in train] == [0, 0, 12345.6]


def test_overrides_replace_fields_and_nothing_else():
    made = overridden(BASE, {"algorithm.beta": 0.5, "data.eval": ["file:a", "file:b"], "seed": 3})
    assert (made.algorithm.beta, made.data.eval, made.seed) == (0.5, ("file:a", "file:b"), 3)
    assert replace(made, algorithm=BASE.algorithm, data=BASE.data, seed=BASE.seed) == BASE


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"arms": {"a": Arm(overrides={"algorithm.bta": 1}), "grpo": Arm()}}, "did you mean 'algorithm.beta'"),
        ({"arms": {"a": Arm(overrides={"beta": 1.0}), "grpo": Arm()}}, "arm 'a': there is no field 'beta'; did you me"),
        ({"arms": {"a": Arm(overrides={"algorithm.epsilon": 2.0}), "grpo": Arm()}}, "arm 'a': algorithm.epsilon is 2"),
        ({"arms": {"a": Arm(overrides={"seed": 2}), "grpo": Arm()}}, "arm 'a' overrides seed, which the study decides"),
        ({"arms": {"a": Arm(overrides={"train.steps": 2}), "grpo": Arm()}}, "arm 'a' overrides train.steps"),
        ({"arms": {"a": Arm(), "grpo": Arm(overrides={"train.max_seconds": 2})}}, "overrides train.max_seconds"),
        ({"arms": {"a": Arm(), "grpo": Arm(overrides={"algorithm.beta": 0.0})}}, "arms 'a' and 'grpo' are the same"),
        ({"arms": {"grpo": Arm()}}, "the study has 1 arms; name at least two"),
        ({"arms": {"grpo": Arm(), "../x": Arm(overrides=GRPO)}}, "the arm '../x' cannot be a directory"),
        ({"arms": {"grpo": Arm(), "x": GRPO}}, "arms must be a dict from names to Arm"),
        ({"arms": {"grpo": forced(Arm(), paper={"avg": "70"}), "x": Arm(overrides=GRPO)}}, "paper says '70' for 'avg'"),
        ({"baseline": "gpro"}, "there is no arm 'gpro'; did you mean 'grpo'? known: igrpo, grpo"),
        ({"budget": "sampled_token"}, "the budget 'sampled_token' is not known; did you mean 'sampled_tokens'?"),
        ({"seeds": ()}, "the study has no seeds; give one at least"),
        ({"seeds": (0, 1, 0)}, "the seeds are (0, 1, 0); they must be whole numbers from 0, each once"),
        ({"seeds": (-1,)}, "must be whole numbers from 0"),
        ({"config": None}, "the study's config is no Config"),
        (
            {"arms": {"a": Arm(overrides={"train.problems_per_step": 10_000}), "grpo": Arm(overrides=GRPO)}},
            "arm 'a': one step takes 80000 sampled completions and the budget is 3840",
        ),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(changes, phrase):
    with pytest.raises(ValueError) as error:
        check_study(study(**changes))
    assert phrase in str(error.value)


def test_an_override_of_another_type_is_refused():
    """In a process of its own: in tests dataclasses look at types themselves."""
    code = "from igrpo_jax.edges.user_code import overridden; from igrpo_jax.config import Config; "
    code += "print(overridden(Config(), {'algorithm.beta': 1}).algorithm.beta); overridden(Config(), {'seed': '1'})"
    done = subprocess.run([sys.executable, "-c", code], cwd=STUDIES[0].parents[2], capture_output=True, text=True)
    assert done.stdout == "1\n" and done.stderr.endswith("ValueError: seed is '1'; it must be a whole number\n")


def test_some_arms_come_with_what_they_are_compared_with():
    three = study(arms={"igrpo": Arm(), "grpo": Arm(overrides=GRPO), "kl": Arm(overrides={"algorithm.beta": 0.1})})
    assert arms_named(three, ("kl",)) == ["grpo", "kl"] and arms_named(three, ()) == ["igrpo", "grpo", "kl"]
    with pytest.raises(ValueError, match="there is no arm 'kk'; did you mean 'kl'"):
        arms_named(three, ("kk",))
