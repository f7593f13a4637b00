"""Checks that all lengths in a GGUF file's header lie in the file, before a reader believes them."""

import struct
from pathlib import Path
from typing import BinaryIO

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by the number of its type; 8 is a text, 9 a list."""

TEXT, LIST = 8, 9


def check_bounds(file: Path) -> None:
    """Walks over the header: counts and lengths of texts and lists.

    Raises:
      ValueError: one leads beyond the file's end, or it is no GGUF file of version 2 or 3.
      OSError: it cannot be read.
    """
    if not file.is_file():
        raise ValueError(f"{file} is no plain file; download it again")
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            magic, version, tensors, pairs = _read(opened, "<4sIQQ")
            if magic != b"GGUF" or version not in (2, 3):
                raise _Damaged("it does not begin like a GGUF file of version 2 or 3")
            for _ in range(pairs):
                _skip_text(opened, size)
                _skip_value(opened, _read(opened, "<I")[0], size)
            for _ in range(tensors):
                _skip_text(opened, size)
                (dimensions,) = _read(opened, "<I")
                if dimensions > 4:
                    raise _Damaged(f"a tensor has {dimensions} dimensions")
                _read(opened, f"<{dimensions}QIQ")
    except (_Damaged, struct.error) as error:
        reason = str(error) if isinstance(error, _Damaged) else "its header goes beyond its end"
        raise ValueError(f"{file} is corrupt or truncated ({reason}); delete it and download it again") from None


class _Damaged(Exception):
    pass


def _read(file: BinaryIO, form: str) -> tuple:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _skip(file: BinaryIO, count: int, size: int) -> None:
    if count > size - file.tell():
        raise _Damaged(f"it has {size} bytes, and something in its header {count}")
    file.seek(count, 1)


def _skip_text(file: BinaryIO, size: int) -> None:
    _skip(file, _read(file, "<Q")[0], size)


def _skip_value(file: BinaryIO, kind: int, size: int) -> None:
    if kind == TEXT:
        _skip_text(file, size)
    elif kind == LIST:
        inner, count = _read(file, "<IQ")
        if inner in WIDTHS:
            _skip(file, count * WIDTHS[inner], size)
        elif inner == TEXT:
            for _ in range(count):
                _skip_text(file, size)
        else:
            raise _Damaged("it has lists of lists" if inner == LIST else f"there is no type {inner}")
    elif kind in WIDTHS:
        _skip(file, WIDTHS[kind], size)
    else:
        raise _Damaged(f"there is no type {kind}")
