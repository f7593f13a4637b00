"""Whose directory it is."""

import json
import os

import pytest

from igrpo_jax.config import (
    AlgorithmConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    PromptConfig,
    RewardConfig,
    SamplingConfig,
    TrainConfig,
    fields,
    to_dict,
)
from igrpo_jax.records.workdir import FREE, changed, claim, compare_run
from models.config import DecoderConfig
from tests.runs import fill

SMALL = DecoderConfig(
    family="llama", vocab_size=8, width=8, layers=1, heads=1, kv_heads=1, head_dim=8, mlp=8, rope_theta=1.0,
    max_position=8, norm_eps=1e-5,
)  # fmt: skip


def test_changed_lists_fields_that_differ():
    old, new = to_dict(Config(seed=0)), to_dict(Config(seed=1))
    assert changed(old, new) == ["seed: 0 -> 1"]


def test_a_field_that_an_older_version_did_not_have_had_its_default():
    old, new = to_dict(Config()), to_dict(Config(optim=OptimConfig(weight_decay=0.1)))
    del old["optim"]["beta1"], old["optim"]["weight_decay"]
    assert changed(old, new) == ["optim.weight_decay: 0.0 -> 0.1"]


@pytest.mark.parametrize(("former", "today"), [(True, "group"), (False, "none")])
def test_runs_from_when_scale_rewards_was_true_or_false_go_on(former, today, tmp_path, capsys):
    config = Config(algorithm=AlgorithmConfig(scale_rewards=today))
    claim(tmp_path, config, SMALL)
    record = json.loads((tmp_path / "config.json").read_text())
    record["config"]["algorithm"]["scale_rewards"] = former
    for name in ("baseline", "kl_estimator", "kl_in", "mask_truncated", "overlong_buffer"):
        del record["config"]["algorithm"][name]  # fields of later versions
    (tmp_path / "config.json").write_text(json.dumps(record))
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    other = Config(algorithm=AlgorithmConfig(scale_rewards="batch"))
    with pytest.raises(ValueError, match=rf"another experiment \(algorithm.scale_rewards: '{today}' -> 'batch'\)"):
        claim(tmp_path, other, SMALL)
    claim(tmp_path, config, SMALL)
    assert "changed" not in capsys.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text())["config"]["algorithm"]["scale_rewards"] == today


def test_values_of_the_chat_template_stay_with_a_run():
    config = Config(prompt=PromptConfig(chat_template_kwargs={"enable_thinking": False, "date_string": "1 May"}))
    saved, plain = (json.loads(json.dumps(to_dict(one))) for one in (config, Config()))
    assert changed(saved, json.loads(json.dumps(to_dict(config)))) == []
    assert changed(saved, plain) == [
        "prompt.chat_template_kwargs: {'enable_thinking': False, 'date_string': '1 May'} -> {}"
    ]
    del saved["prompt"]["chat_template_kwargs"], saved["prompt"]["date"]  # written before there was such a field
    assert changed(saved, plain) == []


def test_every_free_field_exists():
    names = fields(to_dict(Config()))
    assert all(any(name.startswith(free) for name in names) for free in FREE)


@pytest.mark.parametrize(
    "config",
    [
        Config(seed=1),
        Config(algorithm=AlgorithmConfig(num_drafts=0)),
        Config(data=DataConfig(train=("arithmetic:sum",))),
        Config(reward=RewardConfig(functions=("format",))),
        Config(optim=OptimConfig(learning_rate=2e-6)),
        Config(model=ModelConfig(dtype="bfloat16")),
        Config(sampling=SamplingConfig(max_completion_length=8)),
    ],
)
def test_another_experiment_is_refused_once_there_is_a_checkpoint(config, tmp_path, capsys):
    claim(tmp_path, Config(), SMALL)
    claim(tmp_path, config, SMALL)  # nothing would be mixed
    assert "resuming with a changed config" in capsys.readouterr().out
    unfinished = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp-1"
    unfinished.mkdir(parents=True)
    claim(tmp_path, Config(), SMALL)
    (tmp_path / "checkpoints" / "2").mkdir()
    before = (tmp_path / "config.json").read_bytes()
    [name] = [change.partition(":")[0] for change in changed(to_dict(Config()), to_dict(config))]
    with pytest.raises(ValueError, match=rf"another experiment \({name}: .* -> .*\); choose another --workdir"):
        claim(tmp_path, config, SMALL)
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_changes_no_result_may_change_between_checkpoints(tmp_path, capsys):
    claim(tmp_path, Config(), SMALL)
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    model, train = ModelConfig(export_dtype="bfloat16"), TrainConfig(steps=200, micro_batch=2)
    reward = RewardConfig(call_deadline=60.0, errors="zero")  # what a failed call says would help
    claim(tmp_path, Config(model=model, train=train, reward=reward, eval=EvalConfig(num_samples=1)), SMALL)
    said = capsys.readouterr().out
    assert "reward.call_deadline: 600.0 -> 60.0" in said and "reward.errors: 'stop' -> 'zero'" in said
    names = ("train.steps: 100 -> 200", "train.micro_batch", "eval.num_samples", "model.export_dtype")
    assert all(name in said for name in names)


def test_claim_keeps_the_first_config_of_another_model(tmp_path):
    claim(tmp_path / "run", Config(), SMALL)
    with pytest.raises(ValueError, match="another model"):
        claim(tmp_path / "run", Config(), DecoderConfig(**(vars(SMALL) | {"width": 16})))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["architecture"]["width"] == 8


DATA = {"file:a.jsonl": (16, "0123456789abcdef"), "arithmetic:sum": (9, "x")}


def test_data_that_changed_before_a_resume_is_told(tmp_path, capsys):
    claim(tmp_path, Config(), SMALL, DATA)
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    claim(tmp_path, Config(), SMALL, DATA)
    assert capsys.readouterr().out == ""
    claim(tmp_path, Config(), SMALL, {"file:a.jsonl": (8, "other"), "arithmetic:sum": (9, "y"), "file:new": (1, "z")})
    assert capsys.readouterr().out.splitlines() == [
        "warning: not exactly the same run, resuming with changed data: file:a.jsonl: 16 usable problems -> 8",
        "warning: not exactly the same run, resuming with changed data: arithmetic:sum: other problems, or in another "
        "order",
    ]
    claim(tmp_path, Config(), SMALL, {"file:a.jsonl": (8, "other"), "arithmetic:sum": (9, "y")})
    assert capsys.readouterr().out == ""  # it is recorded


@pytest.mark.parametrize(
    "data",
    [None, [], "text", 3, {"file:a": None}, {"file:a": []}, {"file:a": [16]}, {"file:a": [16, "x", 3]},
     {"file:a": ["x", 16]}, {"file:a": [True, "x"]}, {"file:a": [1.5, "x"]}, {"file:a": {"16": "x"}}],
)  # fmt: skip
def test_a_record_of_data_in_another_form_is_named(data, tmp_path):
    claim(tmp_path, Config(), SMALL, DATA)
    record = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(record | {"data": data}))
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"config\.json is not that of a run"):
        claim(tmp_path, Config(), SMALL, DATA)
    assert (tmp_path / "config.json").read_bytes() == before


def test_terminal_codes_in_what_a_config_was_are_written_out(tmp_path, capsys):
    claim(tmp_path, Config(data=DataConfig(eval=("file:\x1b[2Ja",))), SMALL)
    claim(tmp_path, Config(), SMALL)
    assert "\x1b" not in capsys.readouterr().out


def test_a_config_json_of_an_older_version_still_resumes(tmp_path, capsys):
    claim(tmp_path, Config(), SMALL)
    old = json.loads((tmp_path / "config.json").read_text())
    del old["data"], old["config"]["eval"]["problems"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    claim(tmp_path, Config(), SMALL, DATA)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        (b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}', "describes a model, which goes to --model"),
        (b'{"name": "a package"}', "is not that of a run (it has no config and architecture)"),
        (b"[1, 2]", "is not that of a run"),
        (b"null", "is not that of a run"),
        (b'{"architecture": {}, "config": []}', "is not that of a run"),
        (b'{"architecture": {}, "config": {"model": 3}}', "is not that of a run"),
        (b'{"config": {"seed": 0', "cannot be read (Expecting ',' delimiter"),
        (b"", "cannot be read (Expecting value"),
        (b"\xff\xfe", "cannot be read ('utf-8' codec"),
    ],
)
@pytest.mark.parametrize("job", [claim, lambda *run: compare_run(*run, say=print)])
def test_a_directory_that_is_something_else(job, body, phrase, tmp_path):
    (tmp_path / "config.json").write_bytes(body)
    with pytest.raises(ValueError) as raised:
        job(tmp_path, Config(), SMALL)
    message = str(raised.value)
    assert (
        message.startswith(f"{tmp_path}/config.json ") and phrase in message and "choose another --workdir" in message
    )
    assert "\n" not in message and (tmp_path / "config.json").read_bytes() == body


@pytest.mark.parametrize("name", ["export", "checkpoints", "tensorboard"])
def test_what_would_be_in_the_way_later_is_refused_before_training(name, tmp_path):
    (tmp_path / name).write_text("a file")
    with pytest.raises(ValueError, match=f"{name} is in the way: no directory"):
        claim(tmp_path, Config(), SMALL)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"{name} is a link to nowhere"):
        claim(tmp_path, Config(), SMALL)
    if name == "export":
        claim(tmp_path, Config(train=TrainConfig(export=False)), SMALL)


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl"])
def test_logs_of_something_else_are_not_written_over(name, tmp_path):
    path = tmp_path / name
    path.write_text('{"loss": 1.0, "step": 3}\n')
    with pytest.raises(ValueError, match=f"{name} is not that of a run, which would write over it"):
        claim(tmp_path, Config(), SMALL)
    for ours in ("", '{"step": 0, "eval/x/avg@1": 0.5}\n{"step": 1', '{"step": 1, "rew'):
        path.write_text(ours)
        claim(tmp_path, Config(), SMALL)


def test_jobs_that_read_say_what_differs_in_what_matters(tmp_path):
    said = []
    compare_run(tmp_path, Config(), SMALL, say=said.append)
    claim(tmp_path, Config(), SMALL)
    compare_run(tmp_path, Config(seed=1, train=TrainConfig(steps=3)), SMALL, say=said.append)
    assert said == ["with another config than the run's: seed: 0 -> 1"]
    with pytest.raises(ValueError, match="another model"):
        compare_run(tmp_path, Config(), DecoderConfig(**(vars(SMALL) | {"width": 16})), say=said.append)


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_lost_config_beside_checkpoints_is_named_and_not_made_up(harm, tmp_path):
    claim(tmp_path, Config(), SMALL)
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    path, right = tmp_path / "config.json", (tmp_path / "config.json").read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(right[:-20])
    with pytest.raises(ValueError, match=r"config.json .* put it back \(cp \S+config.copy.json \S+/config.json\)"):
        claim(tmp_path, Config(seed=1), SMALL)
    assert (not path.exists()) if harm == "missing" else path.read_bytes() == right[:-20]
    path.write_bytes((tmp_path / "config.copy.json").read_bytes())
    assert path.read_bytes() == right
    claim(tmp_path, Config(), SMALL)


def test_a_pipe_in_place_of_a_file_holds_nothing_up(tmp_path):
    for name in ("config.json", "metrics.jsonl"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match=name):
            claim(tmp_path, Config(), SMALL)
        (tmp_path / name).unlink()


def test_on_a_full_disk_a_config_is_written_whole_or_not_at_all(small_disk):
    workdir, refused = small_disk / "run", 0
    for config in (Config(), Config(seed=1)):  # a new one, and one in place of another
        before = None
        for leave in range(0, 1 << 16, 1 << 12):
            filling = fill(small_disk, leave)
            try:
                claim(workdir, config, SMALL)
            except ValueError as error:
                assert "No space left on device" in str(error) and "\n" not in str(error)
                path = workdir / "config.json"
                now = path.read_bytes() if path.exists() else None
                assert before in (None, now) and not list(workdir.glob("*.part"))
                before, refused = now, refused + 1
                filling.unlink()
            else:
                break
        filling.unlink()
        assert json.loads((workdir / "config.json").read_text())["config"] == json.loads(json.dumps(to_dict(config)))
        assert (workdir / "config.json").read_bytes() == (workdir / "config.copy.json").read_bytes()
    assert refused >= 2


def test_what_a_killed_writer_left_is_swept(tmp_path):
    for name in ("config.json.77.part", "metrics.jsonl.77.part", "metrics.part", "own.part"):
        (tmp_path / name).touch()
    claim(tmp_path, Config(), SMALL)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "config.copy.json", "own.part"}
