"""Files on disk as one source: a file, the files of a directory, or those that a pattern matches."""

import bisect
import glob
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igrpo_jax.data.rows import Rows
from igrpo_jax.data.tables import COMPRESSIONS, TYPES, read_table, type_of
from igrpo_jax.edges.user_code import path_of


def read_file(path: str, /) -> Rows:
    """Reads a file into memory, or several of one type one behind the other, in the order of their names.

    Args:
      path: a file; a directory, for the data files in it; or a pattern with `*`, `[...]` and, for directories inside
        directories, `**` (a `?` must be written `%3F`). See `igrpo_jax.data.tables` for the types.

    Raises:
      ValueError: if there is no such file, one is of another type or corrupt, or they are of several types.
    """
    place = path_of(path)
    if place.is_dir():
        files, name = _inside(place), place.absolute().name
    elif not place.exists() and glob.has_magic(str(place)):
        files, name = _matching(place)
    else:
        files, name = [_checked(place)], ""
    kinds = sorted({str(type_of(file)) for file in files})
    if len(kinds) > 1:
        raise ValueError(
            f"{place.absolute()} is of several types ({', '.join(kinds)}); name those of one with a pattern, like "
            f"{place if place.is_dir() else place.parent}/*.{kinds[0]}"
        )
    tables = [read_table(file) for file in files]
    return tables[0] if len(tables) == 1 and not name else _joined(name, tables)


def _checked(file: Path) -> Path:
    """A file that can be read, as far as its name says."""
    if type_of(file) is None:
        raise ValueError(
            f"files of type {''.join(file.suffixes[-2:])!r} are not read; convert it to {', '.join(TYPES)} (but the "
            f"last also compressed, {', '.join(COMPRESSIONS)})"
        )
    if not file.is_file():
        raise ValueError(f"no such file; checked {file.absolute()}")
    return file


def _inside(place: Path) -> list[Path]:
    """The data files of a directory; not those of its directories, nor hidden ones."""
    if (place / "state.json").exists() or (place / "dataset_dict.json").exists():
        raise ValueError(f"{place.absolute()} was saved with save_to_disk; write hf: in place of file:")
    files = sorted(file for file in place.iterdir() if file.name[0] not in "._" and file.is_file() and type_of(file))
    if not files:
        raise ValueError(
            f"the directory {place.absolute()} holds no data files ({', '.join(TYPES)}); where they are in directories "
            f"of it, write a pattern like {place}/**/*.parquet"
        )
    return files


def _matching(pattern: Path) -> tuple[list[Path], str]:
    """The files that a pattern matches, and a name for them: what stands before the first `*`, or the directory."""
    files = [_checked(Path(file)) for file in sorted(glob.glob(str(pattern), recursive=True)) if Path(file).is_file()]
    if not files:
        raise ValueError(f"no such file; nothing matches {pattern.absolute()}")
    fixed = "".join(itertools.takewhile(lambda letter: letter not in "*?[", pattern.name)).strip("-_. ")
    folders = [part for part in pattern.absolute().parent.parts if not glob.has_magic(part)]
    return files, fixed or folders[-1].strip("/") or "files"


def _joined(name: str, tables: Sequence[Rows]) -> Rows:
    """Several tables as one; a row has the columns of its own table."""
    ends = list(itertools.accumulate(table.size for table in tables))

    def read(index: int) -> Mapping[str, Any]:
        part = bisect.bisect_right(ends, index)
        return tables[part].read(index - (ends[part] - tables[part].size))

    return Rows(name, ends[-1], list(dict.fromkeys(name for table in tables for name in table.columns)), read)
