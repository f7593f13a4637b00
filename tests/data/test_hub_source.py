import os
import subprocess
import sys

import datasets
import datasets.config
import datasets.exceptions
import pytest

TRAIN = {"question": ["1 + 1?", "1 + 2?"], "answer": ["2", "3"], "extra": [{"level": 1}, {"level": 2}]}


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def saved(tmp_path):
    """A dataset with two splits, saved with `save_to_disk`."""
    train = datasets.Dataset.from_dict(TRAIN)
    splits = datasets.DatasetDict()
    splits["train"], splits["test"] = train, train.select([1])
    splits.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_dataset(load, fails, saved):
    source = load(f"hf:{saved}")
    assert (source.name, len(source)) == ("saved", 2)
    assert source[1] == (1, "1 + 2?", {"question": "1 + 2?", "answer": "3", "extra": {"level": 2}})
    assert load(f"hf:{saved}?split=test&answer=extra.level")[0].columns["answer"] == "2"
    fails(f"hf:{saved}?split=dev", "no split 'dev'", "one of train, test")
    fails(f"hf:{saved}?name=main", "leave name= out")
    fails(f"hf:{saved}?revision=main", "leave revision= out")
    fails(f"hf:{saved}?answer=gold", "present: question, answer, extra")


def test_a_saved_table(load, fails, saved):
    assert load(f"hf:{saved}/train")[0].question == "1 + 1?"
    fails(f"hf:{saved}/train?split=test", "without the split 'test'")


def test_a_damaged_table(fails, saved):
    next((saved / "train").glob("*.arrow")).write_bytes(b"nothing")
    fails(f"hf:{saved}", "cannot be read", "save the dataset again")


def test_a_directory_of_tables(load, fails, tmp_path):
    (tmp_path / "repo" / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(TRAIN).to_parquet(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet")
    spec = f"hf:{tmp_path / 'repo'}"
    assert load(spec)[1].columns == {"question": "1 + 2?", "answer": "3", "extra": {"level": 2}}
    assert len(load(f"{spec}?split=train[:1]")) == 1
    fails(f"{spec}?split=test", 'Unknown split "test"', "set name=, split=")
    fails(f"{spec}?name=hard", "'hard' not found", "set name=, split=")


def test_directories_without_data(fails, tmp_path):
    fails(f"hf:{tmp_path}/none", "no such directory")
    (tmp_path / "empty").mkdir()
    fails(f"hf:{tmp_path}/empty", "doesn't contain any data files")


def test_no_network_names_the_way_around():
    code = (
        "from igrpo_jax.data import load_source\n"
        "try: load_source('hf:openai/gsm8k?name=main', question_column='question', answer_column='answer')\n"
        "except ValueError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    lines = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hf:openai/gsm8k?name=main: no connection to the Hugging Face hub")
    assert "save_to_disk" in lines[0]
    assert "file:x.parquet" in lines[0]


def test_an_unknown_id(fails, monkeypatch):
    def refuse(*args, **kwargs):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    fails("hf:a/b", "Dataset 'a/b' doesn't exist", "check the id", "file:x.parquet")
