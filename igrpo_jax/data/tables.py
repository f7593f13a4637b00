"""One data file as rows: JSON Lines, JSON, CSV or Parquet, compressed or not."""

import contextlib
import csv
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from igrpo_jax.data.rows import Rows

LINES, LIST, COMMAS, TABS, TABLE = "jsonl", "json", "csv", "tsv", "parquet"
TYPES = {".jsonl": LINES, ".ndjson": LINES, ".json": LIST, ".csv": COMMAS, ".tsv": TABS, ".parquet": TABLE}
"""What is read, by the end of a file's name."""

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")

_LONGEST_FIELD = 2**31 - 1


def type_of(file: Path) -> str | None:
    """The type of a file by its name, whatever its compression; None for what is not read.

    >>> type_of(Path("a.jsonl.zst")), type_of(Path("b.CSV")), type_of(Path("c.txt")), type_of(Path("d.parquet.gz"))
    ('jsonl', 'csv', None, None)
    """
    packed = _compression(file)
    kind = TYPES.get(Path(file.stem if packed else file.name).suffix.lower())
    return None if packed and kind == TABLE else kind


def read_table(file: Path) -> Rows:
    """Reads a file into memory.

    Raises:
      ValueError: if it is of another type, empty or corrupt; a corrupt line is named by its number.
    """
    readers: dict[str | None, Callable[[Path], Rows]] = {
        LINES: _read_lines, LIST: _read_json, COMMAS: _read_csv, TABS: _read_csv, TABLE: _read_parquet
    }  # fmt: skip
    try:
        return readers[type_of(file)](file)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError(f"{file} cannot be read ({_first_line(error)}); check or fetch the file again") from error


def _compression(file: Path) -> str:
    return file.suffix.lower() if file.suffix.lower() in COMPRESSIONS else ""


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed while they are read."""
    import bz2
    import gzip

    if _compression(file) == ".zst":
        import pyarrow

        with pyarrow.CompressedInputStream(str(file), "zstd") as stream:
            yield io.BytesIO(stream.read())  # a damaged stream is an error here and not in the middle of a line
        return
    open_ = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(_compression(file), open)
    with open_(file, "rb") as stream:
        yield stream


def _read_lines(file: Path) -> Rows:
    rows = []
    # Bytes, so that text that is not UTF-8 is an error of its line.
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                rows.append(_parse(line, f"{file}, line {number}"))
    return _table(file, rows)


def _read_json(file: Path) -> Rows:
    with _opened(file) as opened:
        data = opened.read()
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


def _read_csv(file: Path) -> Rows:
    """Rows below a line of column names; every value is the text that stands there."""
    csv.field_size_limit(_LONGEST_FIELD)
    rows: list[dict[str, Any]] = []
    with _opened(file) as opened, io.TextIOWrapper(opened, "utf-8-sig", newline="") as text:
        reader = csv.reader(text, delimiter="\t" if type_of(file) == TABS else ",", strict=True)
        try:
            names = next(reader, [])
            if len(set(names)) < len(names):
                raise ValueError(f"{file} names a column twice in its first line: {', '.join(names)}; rename one")
            for values in reader:
                if values and len(values) != len(names):
                    raise ValueError(
                        f"{file}, line {reader.line_num} has {len(values)} values for {len(names)} columns; quote "
                        "values that hold a separator, or mend that line"
                    )
                if values:
                    rows.append(dict(zip(names, values, strict=True)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}, line {reader.line_num + 1} is no CSV in UTF-8 ({error}); mend it") from error
    return _table(file, rows)


def _table(file: Path, rows: list[dict[str, Any]]) -> Rows:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Rows(_stem(file), len(rows), columns, rows.__getitem__)


def _stem(file: Path) -> str:
    return Path(file.stem).stem if _compression(file) else file.stem


def _read_parquet(file: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        _check_size(file, pyarrow.parquet.read_metadata(file))
        table = pyarrow.parquet.read_table(file, page_checksum_verification=True)
        table.validate(full=True)
    # Damage surfaces as errors of Arrow, and of whatever its numbers lead to.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, TypeError, KeyError, MemoryError) as error:
        raise ValueError(f"{file} is no readable Parquet file ({_first_line(error)}); fetch it again") from error

    def read(index: int) -> Mapping[str, Any]:
        return table.slice(index, 1).to_pylist()[0]

    return Rows(_stem(file), table.num_rows, table.column_names, read)


def _check_size(file: Path, metadata: Any) -> None:
    """Refuses a table that says it is larger than this machine's memory, before any of it is read."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not 0 <= size <= memory:
        raise ValueError(f"it says to have {size} bytes, and this machine's memory has {memory}; split it")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
