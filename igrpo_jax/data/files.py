"""JSON Lines, JSON and Parquet files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igrpo_jax.data.rows import Rows


def read_file(path: str, /) -> Rows:
    """Reads a file into memory: objects one a line, an array of objects, or a Parquet table.

    Raises:
      ValueError: if the file is missing, of another type, empty or corrupt; a corrupt line is named by its number.
    """
    file = Path(path).expanduser()
    readers = {".jsonl": _read_lines, ".json": _read_json, ".parquet": _read_parquet}
    if file.suffix not in readers:
        raise ValueError(f"files of type {file.suffix!r} are not read; convert it to .jsonl, .json or .parquet")
    if not file.is_file():
        raise ValueError(f"no such file; checked {file.absolute()}")
    try:
        return readers[file.suffix](file)
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({_first_line(error)}); check or fetch the file again") from error


def _read_lines(file: Path) -> Rows:
    rows = []
    # Bytes, so that text that is not UTF-8 is an error of its line.
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                rows.append(_parse(line, f"{file}, line {number}"))
    return _table(file, rows)


def _read_json(file: Path) -> Rows:
    data = file.read_bytes()
    if not data.lstrip().startswith(b"["):
        return _read_lines(file)
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON ({error}); mend it, or fetch the file again") from error
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{file}, item {number} is a {type(row).__name__}; every item must be a JSON object")
    return _table(file, rows)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON ({error}); mend or delete that line") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__}; every line must be a JSON object")
    return row


def _table(file: Path, rows: list[dict[str, Any]]) -> Rows:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Rows(file.stem, len(rows), columns, rows.__getitem__)


def _read_parquet(file: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{file} is no readable Parquet file ({_first_line(error)}); fetch it again") from error

    def read(index: int) -> Mapping[str, Any]:
        return table.slice(index, 1).to_pylist()[0]

    return Rows(file.stem, table.num_rows, table.column_names, read)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
