"""Directories that appear whole or not at all, and safetensors files read by slices and written tensor by tensor."""

import ctypes
import json
import os
import shutil
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from models.formats.hf_config import read_json

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Dtypes that tensors are read and written in, and how safetensors spells them."""

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


HOUR = 3600.0


@contextmanager
def whole_directory(target: Path, *, replace: bool) -> Iterator[Path]:
    """A new directory beside `target` that takes its place when the block ends, and vanishes if the block fails.

    Args:
      target: where the directory goes; its parents are made.
      replace: whether a model directory that is already there gives way. Otherwise the one that came first stays, so
        that several processes may race for it.

    Raises:
      ValueError: `target` holds something that is no model directory, or cannot be written.
    """
    if replace:
        recover(target)
        check_replaceable(target)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        _put(partial, target, replace)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"cannot write {target} ({reason}); free or allow writing there, or choose another") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


SUMS = "checksums.json"


def write_checksums(directory: Path) -> None:
    """Writes length and CRC-32 of every file of a directory into its checksums.json."""
    files = {file.name: _measured(file) for file in sorted(directory.iterdir()) if file.is_file()}
    write_json(directory / SUMS, {"crc32": files, "of": zlib.crc32(json.dumps(files, sort_keys=True).encode())})


def damage(directory: Path, *, weights: bool = True) -> str | None:
    """What is wrong with a directory by its checksums, in few words; None if nothing is, or it has none.

    Args:
      directory: with a checksums.json or without.
      weights: whether to read the tensors too, gigabytes perhaps; otherwise their files must be there.
    """
    if not os.path.lexists(directory / SUMS):
        return None
    try:
        record = read_json(directory / SUMS)
        files = record["crc32"]
        if record["of"] != zlib.crc32(json.dumps(files, sort_keys=True).encode()):
            return f"{SUMS} is damaged"
        for name, measured in files.items():
            if not (directory / name).is_file():
                return f"{name} is missing"
            if (weights or not name.endswith(".safetensors")) and _measured(directory / name) != measured:
                return f"{name} has another checksum"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{SUMS} is damaged"
    except OSError as error:
        return f"a file cannot be read ({error.strerror})"
    return None


def _measured(file: Path) -> list[int]:
    size = crc = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


def recover(target: Path) -> None:
    """Puts a directory back that a process killed between two renames had set aside, and removes other leftovers."""
    aside = sorted(target.parent.glob(f".{target.name}.*.old"), key=lambda path: path.stat().st_mtime)
    if aside and not target.exists():
        aside.pop().rename(target)
    for leftover in target.parent.glob(f".{target.name}.*.partial"):
        if time.time() - max(path.lstat().st_mtime for path in [leftover, *leftover.glob("*")]) > HOUR:
            aside.append(leftover)  # of no process that is writing it
    for leftover in aside:
        shutil.rmtree(leftover, ignore_errors=True)


def check_replaceable(target: Path, source: Path | None = None) -> None:
    """Refuses a place where a model directory cannot go.

    Args:
      target: where it is to go.
      source: a model directory that is still needed.

    Raises:
      ValueError: there is something that is no model directory, or the model that is still needed.
    """
    if target.exists() and not (target.is_dir() and _replaceable(target)):
        raise ValueError(f"{target} exists and holds no model; choose another directory or remove it")
    if source is not None and target.exists() and target.samefile(source):
        raise ValueError(f"{target} holds the model that the run starts from and would be replaced; choose another")


def _replaceable(directory: Path) -> bool:
    return (directory / "config.json").exists() or not any(directory.iterdir())


def _put(partial: Path, target: Path, replace: bool) -> None:
    """Renames `partial` to `target`."""
    if replace and target.exists():
        if _exchange(partial, target):
            return
        old = partial.with_suffix(".old")
        target.rename(old)
        try:
            partial.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
        return
    try:
        partial.rename(target)
    except OSError:
        # Another process was faster; its directory is as whole as ours.
        if not (target / "config.json").exists():
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Lets two directories change places in one step, where system and file system can; says whether they have."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file, of which `[...]` reads a part.

    Attributes:
      name: in the file.
      part: the safetensors slice.
    """

    file: Path
    name: str
    part: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.part.get_shape())

    @property
    def dtype(self) -> str:
        """One of `DTYPES`."""
        return next(name for name, stored in DTYPES.items() if stored == self.part.get_dtype())

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.part[index]


def open_tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a model directory by its name in the file; reads no data.

    Raises:
      ValueError: no safetensors file, a file that the index names is missing, a file is corrupt or truncated, or a
        tensor is stored twice or in a dtype other than `DTYPES`.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, Tensor] = {}
    for file in _files(directory):
        try:
            handle = safe_open(file, framework="np")
            slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118  (no mapping)
        # The library's own errors, but also whatever its numbers from a damaged header lead to.
        except (SafetensorError, OSError, ValueError, OverflowError) as error:
            raise ValueError(f"{file} is corrupt or truncated ({error}); delete it and download it again") from None
        for name, part in slices.items():
            if name in tensors:
                raise ValueError(f"{file}: tensor {name} is in another file too; download the model again")
            if part.get_dtype() not in DTYPES.values():
                raise ValueError(
                    f"{file}: tensor {name} is stored as {part.get_dtype()}; convert it to one of "
                    f"{', '.join(DTYPES.values())}"
                )
            tensors[name] = Tensor(file, name, part)
    return tensors


def _files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory."""
    files = [directory / name for name in sorted(set(read_index(directory).values()))] or [directory / SINGLE]
    for file in files:
        if not file.exists():
            raise ValueError(f"{file} is missing; download the model again, as safetensors")
        check_inside(file, directory)
    return files


def check_inside(file: Path, directory: Path) -> None:
    """Refuses what is no plain file, or a link to one outside of the model's directory.

    The hub's cache is a layout of links: what is in its `snapshots` may link to its `blobs`.

    Raises:
      ValueError: it is one of these.
    """
    if not file.is_file():
        raise ValueError(f"{file} is no plain file; download the model again")
    home = directory.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if not any(file.resolve().is_relative_to(one) for one in homes):
        raise ValueError(f"{file} leads out of the model's directory, to {file.resolve()}; copy the file there instead")


def read_index(directory: Path) -> dict[str, str]:
    """Tensors and the files that the index says they are in; empty where a single file holds all.

    As in transformers `model.safetensors` goes before an index that lies beside it, and a tensor may be in another of
    the files than the index says.

    Raises:
      ValueError: the index is broken.
    """
    if (directory / SINGLE).exists() or not (directory / INDEX).exists():
        return {}
    places = read_json(directory / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{directory / INDEX} has no weight_map; download it again")
    for tensor, name in places.items():
        if not isinstance(name, str) or not name or name == ".." or Path(name).name != name or "\0" in name:
            raise ValueError(
                f"{directory / INDEX}: weight_map has {str(name)[:80]!r} for {tensor[:80]}, which is no file of that "
                "directory; download it again"
            )
    return places


def write_tensors(
    directory: Path,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    *,
    dtype: str = "float32",
    file_bytes: int = 5_000_000_000,
) -> None:
    """Writes safetensors files, with an index if there are several, holding one tensor at a time in memory.

    Args:
      directory: an existing directory.
      shapes: name and shape of every tensor, in the order in which they are read and written.
      read: gives a tensor by name.
      dtype: one of `DTYPES`.
      file_bytes: a file is closed before it grows beyond this.

    Raises:
      ValueError: `dtype` is none of `DTYPES`, or a tensor does not have its announced shape or is too large for it.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} cannot be written; choose one of {', '.join(DTYPES)}")
    size = jnp.dtype(dtype).itemsize
    files: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        nbytes = int(np.prod(shape)) * size
        if files[-1] and filled + nbytes > file_bytes:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += nbytes
    titles = [SINGLE] if len(files) == 1 else [f"model-{i:05}-of-{len(files):05}.safetensors" for i in _ordinals(files)]
    for title, names in zip(titles, files, strict=True):
        _write_file(directory / title, {name: shapes[name] for name in names}, read, dtype)
    if len(files) > 1:
        total = sum(int(np.prod(shape)) * size for shape in shapes.values())
        places = {name: title for title, names in zip(titles, files, strict=True) for name in names}
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _ordinals(items: list) -> range:
    return range(1, len(items) + 1)


def _write_file(
    path: Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray], dtype: str
) -> None:
    """One file: the header's length, the header (padded to 8 bytes, so that tensors are aligned), the tensors."""
    # transformers refuses a file that does not say which framework's layout it has; "pt" is row-major.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    target, start = jnp.dtype(dtype), 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape)) * target.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name, shape in shapes.items():
            values = read(name)
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(values, dtype=target)
            if array.shape != tuple(shape):
                raise ValueError(f"tensor {name} has shape {array.shape}, announced was {tuple(shape)}")
            if dtype == "float16" and np.isinf(array).any() and not np.isinf(values).any():
                raise ValueError(f"tensor {name} has numbers beyond {dtype}'s; write it as bfloat16 or float32")
            file.write(array.reshape(-1).view(np.uint8).data)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON object, indented, with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
