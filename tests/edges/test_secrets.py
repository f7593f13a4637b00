"""No config holds a key."""

from dataclasses import replace

import pytest

import launch
from igrpo_jax.config import Config, DataConfig, JudgeConfig, ModelConfig, PromptConfig
from igrpo_jax.edges.checks import check

KEY = "sk-" + "proj-4f9aB7kLmN0pQ2rS"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"judge": JudgeConfig(options={"api_key": "x"})}, "judge.options"),
        ({"judge": JudgeConfig(options={"user": KEY})}, "judge.options"),
        ({"judge": JudgeConfig(options={"Authorization": "x"})}, "judge.options"),
        ({"judge": JudgeConfig(base_url="https://me:word@host/v1")}, "judge.base_url"),
        ({"judge": JudgeConfig(base_url="https://host/v1?api-key=x")}, "judge.base_url"),
        ({"judge": JudgeConfig(model=KEY)}, "judge.model"),
        ({"prompt": PromptConfig(system=f"Bearer {KEY[3:]}")}, "prompt.system"),
        ({"data": DataConfig(eval=("hf:x?token=hf_" + "a1B2c3D4e5F6g7H8i9J0k1",))}, "data.eval"),
        ({"model": ModelConfig(source="hf:x@hf_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6")}, "model.source"),
    ],
)
def test_a_key_in_a_config_is_refused_and_not_repeated(changes, field):
    with pytest.raises(ValueError, match="keys come from the environment") as error:
        check(replace(Config(), **changes))
    assert field in str(error.value) and KEY not in str(error.value) and "hf_a" not in str(error.value)


@pytest.mark.parametrize(
    "path",
    [
        "/models/hf_checkpoint_of_llama_3_8b_instruct",
        "/data/gho_results_of_the_experiment",
        "/home/me/hf_models_and_data_sets_2024/x",
        "/runs/sk-learn-experiment-42-long-name",
    ],
)
def test_names_of_folders_are_no_keys(path):
    check(replace(Config(), model=ModelConfig(source=path)))


def test_tokens_of_a_tokenizer_are_no_keys():
    kwargs = {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>"}
    check(replace(Config(), prompt=PromptConfig(chat_template_kwargs=kwargs)))


def test_ordinary_values_are_no_keys():
    judge = JudgeConfig(base_url="http://user@localhost:8000/v1?x=1", options={"max_tokens": 9, "stop": "task-3-of-12"})
    check(replace(Config(), judge=judge, prompt=PromptConfig(system="The bearer of this: a risk-averse monkey, sk-i.")))


@pytest.mark.parametrize("name", ["api_key", "key", "token", "JUDGE_API_KEY"])
def test_a_key_as_a_field_of_a_config_file_is_refused(name, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        f"from igrpo_jax.config import *\n\n\ndef get_config():\n    return Config(judge=JudgeConfig({name}='{KEY}'))\n"
    )
    with pytest.raises(ValueError, match=r"mine\.py, line 5: .* keys come from the environment") as error:
        launch.load_config(str(path))
    assert KEY not in str(error.value)
