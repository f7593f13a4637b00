"""Ways in which a file is damaged, each with dice of the caller's."""

import json
import os
import random
from pathlib import Path
from typing import Any


def flip(data: bytearray, dice: random.Random) -> None:
    """One bit."""
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def change(data: bytearray, dice: random.Random) -> None:
    """One byte, often one that means something in JSON."""
    data[dice.randrange(len(data))] = dice.choice([*b'{}[]",:0-9\n', dice.randrange(256)])


def zeros(data: bytearray, dice: random.Random) -> None:
    """A block, as of a page that never reached the disk."""
    start = dice.randrange(len(data))
    stop = min(len(data), start + dice.choice([8, 512, 4096]))
    data[start:stop] = bytes(stop - start)


def noise(data: bytearray, dice: random.Random) -> None:
    """A block."""
    start = dice.randrange(len(data))
    stop = min(len(data), start + dice.choice([8, 64]))
    data[start:stop] = dice.randbytes(stop - start)


def cut(data: bytearray, dice: random.Random) -> None:
    """The end goes."""
    del data[dice.randrange(len(data)) :]


def insert(data: bytearray, dice: random.Random) -> None:
    """Something gets between."""
    start = dice.randrange(len(data))
    data[start:start] = dice.randbytes(dice.choice([1, 7, 100]))


def repeat(data: bytearray, dice: random.Random) -> None:
    """A part is there twice."""
    start = dice.randrange(len(data))
    data[start:start] = data[start : start + dice.choice([1, 30, 300])]


def huge(data: bytearray, dice: random.Random) -> None:
    """A number becomes very large, as if to ask for memory."""
    start = dice.randrange(len(data))
    data[start : start + 8] = (2 ** dice.choice([31, 40, 62])).to_bytes(8, "little")


SHAPES = (None, True, -1, 2**63, 1.5, "", "text", [], [1], {}, {"name": None})
"""What stands in JSON where something of another form belongs."""


def reshape(data: bytearray, dice: random.Random) -> None:
    """A part of JSON, or of one line of JSON, becomes something of another form, or is left out."""
    lines = data.split(b"\n")
    number = dice.randrange(len(lines))
    for whole in (True, False):
        try:
            value = json.loads(data if whole else lines[number])
        except (ValueError, RecursionError):
            continue
        text = json.dumps(_reshaped(value, dice)).encode()
        data[:] = text + b"\n" if whole else b"\n".join([*lines[:number], text, *lines[number + 1 :]])
        return
    change(data, dice)


def _reshaped(value: Any, dice: random.Random) -> Any:
    """The same but for one part somewhere in it."""
    if not isinstance(value, dict | list) or not value or dice.random() < 0.1:
        return dice.choice([shape for shape in SHAPES if shape != value])
    places = list(value) if isinstance(value, dict) else range(len(value))
    place, copy = dice.choice(places), value.copy()
    if dice.random() < 0.2:
        del copy[place]
    else:
        copy[place] = _reshaped(value[place], dice)
    return copy


HARMS = (flip, flip, change, zeros, noise, cut, insert, repeat, huge, reshape, reshape)
WHOLE = ("empty", "gone", "folder", "pipe")


def damage(file: Path, dice: random.Random) -> str:
    """Does one harm to a file; says which."""
    if dice.random() < 0.12:
        name = dice.choice(WHOLE)
        file.unlink()
        if name == "empty":
            file.touch()
        elif name == "folder":
            file.mkdir()
        elif name == "pipe":
            os.mkfifo(file)
        return name
    data, harm = bytearray(file.read_bytes()), dice.choice(HARMS)
    if data:
        harm(data, dice)
    file.write_bytes(data)
    return harm.__name__
