import json
import shutil
import sys
import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds


class TinySums(tfds.core.GeneratorBasedBuilder):
    """Sums, to be prepared without TensorFlow."""

    # In a package, looking for its own source would need importlib_resources.
    __module__ = "tiny_sums"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        features = {"question": text, "answer": text, "level": np.int64, "info": {"source": text}, "tags": [text]}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features | {"tags": tfds.features.Sequence(text)}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._examples(10), "test": self._examples(3)}

    def _examples(self, count):
        for i in range(count):
            yield (
                i,
                {"question": f"¿{i} + 1?", "answer": f"{i + 1}", "level": i, "info": {"source": "s"}, "tags": ["a"]},
            )

    def _generate_examples(self):
        raise NotImplementedError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The data_dir that the dataset is prepared in."""
    home = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(home))  # The library leaves something there.
        TinySums(data_dir=home, file_format="array_record").download_and_prepare()
    return home


@pytest.mark.parametrize(
    "spec", ["tfds:{}/tiny_sums/1.0.0", "tfds:tiny_sums?data_dir={}", "tfds:tiny_sums:1.0.0?data_dir={}"]
)
def test_random_access_without_tensorflow(load, prepared, spec):
    source = load(spec.format(prepared))
    assert (source.name, len(source)) == ("tiny_sums", 10)
    row = {"question": "¿7 + 1?", "answer": "8", "level": 7, "info": {"source": "s"}, "tags": ["a"]}
    assert source[7] == (7, "¿7 + 1?", row)
    assert [source[i].columns["answer"] for i in (9, 0, 4)] == ["10", "1", "5"]
    assert "tensorflow" not in sys.modules


def test_splits_and_nested_columns(load, prepared):
    where = f"tfds:{prepared}/tiny_sums/1.0.0"
    assert len(load(f"{where}?split=test")) == 3
    assert [p.columns["answer"] for p in list(load(f"{where}?split=train[80%:]"))] == ["9", "10"]
    assert load(f"{where}?answer=info.source")[0].columns["answer"] == "s"


def test_what_is_not_there(fails, prepared, tmp_path):
    where = f"tfds:{prepared}/tiny_sums/1.0.0"
    fails(f"{where}?split=dev", "dev", "check the split")
    fails(f"{where}?answer=gold", "no column 'gold'", "level")
    fails(f"{where}?data_dir=x", "leave it out")
    fails(f"tfds:{prepared}/tiny_sums", "no dataset_info.json", "directory of a prepared version")
    fails(f"tfds:{tmp_path}/none", "no dataset_info.json")
    fails("tfds:tiny_sum", "no dataset 'tiny_sum'", "did you mean 'tiny_sums'?")


def test_files_without_random_access(fails, prepared, tmp_path):
    folder = tmp_path / "tiny_sums" / "1.0.0"
    folder.mkdir(parents=True)
    for name in ("features.json", "dataset_info.json"):
        (folder / name).write_bytes((prepared / "tiny_sums" / "1.0.0" / name).read_bytes())
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    fails(f"tfds:{folder}", "no random access", 'file_format="array_record"')


@pytest.mark.parametrize("keep", [0, 1000, 2**16, None])
def test_damaged_files(fails, prepared, tmp_path, keep):
    folder = shutil.copytree(prepared / "tiny_sums" / "1.0.0", tmp_path / "1.0.0")
    shard = next(folder.glob("*train*"))
    if keep is None:
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:keep])
    fails(f"tfds:{folder}", "example 0 of", "cannot be read", "prepare its directory again")


def test_damaged_descriptions(fails, tmp_path):
    (tmp_path / "dataset_info.json").write_text("{")
    fails(f"tfds:{tmp_path}", "prepare it elsewhere")


def test_a_dataset_that_needs_more_packages(fails, monkeypatch):
    def refuse(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(tfds, "data_source", refuse)
    fails("tfds:tiny_sums", "without the package 'tensorflow'", "prepare it elsewhere")


def test_a_public_set_by_name_may_be_a_prepared_directory(load, prepared):
    source = load(f"amc23?tfds={prepared}/tiny_sums/1.0.0")
    assert (source.name, len(source)) == ("amc23", 3)
    assert (source[2].question, source[2].columns["answer"]) == ("¿2 + 1?", "3")
    assert len(load(f"amc23?tfds={prepared}/tiny_sums/1.0.0&split=train")) == 10
