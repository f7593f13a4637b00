"""Names in a config become reward functions."""

import numpy as np
import pytest

from igrpo_jax.config import RewardConfig
from igrpo_jax.rewards import load_rewards

JOBS = "tests.rewards.jobs"


def test_builtins_with_weights():
    config = RewardConfig(functions=("accuracy", "format", "ended"), weights=(1.0, 0.5, 0.25))
    with load_rewards(config) as rewards:
        scores = rewards.score(
            [r"What is 2+2? Example: \boxed{4}"] * 3,
            [r"\boxed{4}", "a</think><answer>5</answer>", "four"],
            {"answer": ["4", "4", "4"], "ended": [True, False, True]},
        )
    assert list(scores.each) == ["accuracy", "format", "ended"]
    np.testing.assert_array_equal(scores.total, np.array([1.25, 0.5, 0.25], np.float32))
    assert scores.reasons == ["exact", "unequal", "no_answer"] and scores.parsed == ["4", "5", None]


def test_dotted_path():
    with load_rewards(RewardConfig(functions=(f"{JOBS}:length", "format"))) as rewards:
        scores = rewards.score([""], ["abc"], {})
    assert list(scores.each) == ["length", "format"] and scores.total == 3.0


def test_current_directory_is_importable(tmp_path, monkeypatch):
    (tmp_path / "rewards_of_mine.py").write_text(
        "def one(prompts, completions, **columns):\n    return [1] * len(completions)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("elsewhere")  # restores sys.path afterwards
    with load_rewards(RewardConfig(functions=("rewards_of_mine:one",))) as rewards:
        assert rewards.score(["", ""], ["a", "b"], {}).total.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"functions": ("acuracy",)}, r"unknown reward 'acuracy'; did you mean 'accuracy'\? built in are"),
        ({"functions": ("mine.fn",)}, r"unknown reward 'mine.fn'; built in are .*package\.module:function"),
        ({"functions": ("no_such_module:fn",)}, "importing 'no_such_module' raised ModuleNotFoundError.*run from"),
        ({"functions": (f"{JOBS}:lenght",)}, "has no 'lenght'; its functions are loaded, .*length"),
        ({"functions": (f"{JOBS}:NOT_A_FUNCTION",)}, "is no function; write `def NOT_A_FUNCTION"),
        ({"functions": (f"{JOBS}:later",)}, "is no function; write `def later"),
        ({"functions": ()}, "reward.functions is empty; name at least one"),
        ({"functions": ("format", "format")}, "names a function twice"),
        ({"weights": (1.0, 2.0)}, r"reward.weights has 2 numbers for 1 functions \(accuracy\)"),
        ({"deadline": 0.0}, r"reward.deadline is 0.0; give a number above 0"),
    ],
)
def test_bad_configs_name_the_fix(changes, message):
    with pytest.raises(ValueError, match=message):
        load_rewards(RewardConfig(**changes))
