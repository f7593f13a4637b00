"""Damages files of every kind at random and reads them: what is noticed, what is lost, and what must never happen.

    PYTHONPATH=. python benchmarks/corruption.py --count 1000 --seed 0

Every file is damaged in one of the ways of `HARMS` and read as a run would read it. Right are the same values as
before, and a ValueError of one line. Wrong are other exceptions (tracebacks), reading that does not end (hangs), other
values where a checksum exists (silent), and records lost that were not damaged.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 20
"""Seconds after which reading counts as a hang."""

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


class Hang(BaseException):
    """Reading has not ended in time."""


class Kind:
    """Files of one kind: `make(folder)` writes them, `read(folder)` gives what a run sees of them.

    Attributes:
      summed: whether a checksum exists, so that other values than before are wrong.
      files: which files in the folder are damaged.
    """

    def __init__(self, make: Callable, read: Callable, *, summed: bool, files: str = "**/*"):
        self.make, self.read, self.summed, self.files = make, read, summed, files


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


def state(seed: int = 0) -> Any:
    """A small train state."""
    from igrpo_jax.learning.learner import TrainState

    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=(40, 30)).astype(np.float32) for name in "abc"}
    moments: Any = ({"mu": rng.normal(size=(1200,)).astype(np.float32)}, None)
    return TrainState(params, moments)


def make_checkpoints(folder: Path) -> None:
    """Of steps 2 and 4."""
    import jax

    from igrpo_jax.records.checkpoint import Checkpoints

    checkpoints = Checkpoints(folder, keep=2)
    for step in (2, 4):
        checkpoints.save(step, jax.tree.map(jax.numpy.asarray, state(step)))
    checkpoints.close()


def read_checkpoints(folder: Path) -> Any:
    """The newest whole one, which must be as it was saved."""
    import jax

    from igrpo_jax.records.checkpoint import Checkpoints

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state())
    checkpoints = Checkpoints(folder, keep=None)
    try:
        step = checkpoints.latest()
        assert step in (2, 4)
        found = checkpoints.restore(step, placed)
    finally:
        checkpoints.close()
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(state(step)), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


ROWS = [{"step": step, "question": f"wie groß ist {step} + {step}?\u2028", "reward": step / 7} for step in range(1, 60)]


def make_records(folder: Path) -> None:
    """A metrics.jsonl."""
    from igrpo_jax.records.lines import encoded

    folder.mkdir()
    (folder / "metrics.jsonl").write_bytes(encoded(ROWS))


def read_records(folder: Path) -> Any:
    """Whether every line that is as it was is kept."""
    from igrpo_jax.records.lines import encoded, forget

    path = folder / "metrics.jsonl"
    there = set(path.read_bytes().split(b"\n")[:-1]) if path.is_file() else set()
    kept = [encoded([record]).rstrip(b"\n") for record in forget(path, after=59, say=lambda _: None)]
    return not [row for row in ROWS if (line := encoded([row]).rstrip(b"\n")) in there and line not in kept]


def make_config(folder: Path) -> None:
    """A run's config.json."""
    from igrpo_jax.config import Config
    from igrpo_jax.records.workdir import claim
    from models.presets import PRESETS

    claim(folder, Config(), PRESETS["tiny"], {"file:a": (16, "0123456789abcdef")})
    (folder / "checkpoints" / "2").mkdir(parents=True)


def read_config(folder: Path) -> Any:
    """What it says in the end: the right values, unless it is refused and kept as it is."""
    from igrpo_jax.config import Config
    from igrpo_jax.records.workdir import COPY, claim
    from models.presets import PRESETS

    path = folder / "config.json"
    before = path.read_bytes() if path.is_file() else None
    try:
        claim(folder, Config(), PRESETS["tiny"], {"file:a": (16, "0123456789abcdef")})
    except ValueError:
        assert before == (path.read_bytes() if path.is_file() else None)
        raise
    return json.loads(path.read_text(encoding="utf-8")), json.loads((folder / COPY).read_text(encoding="utf-8"))


def make_model(folder: Path) -> None:
    """A golden model of several files."""
    shutil.copytree(GOLDEN / "qwen3", folder)


def read_model(folder: Path) -> Any:
    """All that is read before training."""
    import jax

    from models.formats import load
    from models.formats.sources import resolve
    from models.formats.weights import load_weights

    config = load.read_config(resolve(str(folder)))
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(load_weights(folder, config, remat="none"))]


def make_gguf(folder: Path) -> None:
    """A small GGUF file."""
    from tests.models.formats.test_gguf import write

    folder.mkdir()
    write(folder / "model.gguf")


def read_gguf(folder: Path) -> Any:
    """Converts it."""
    from models.formats.gguf import convert

    convert(folder / "model.gguf", folder / "out")
    return (folder / "out" / "model.safetensors").read_bytes()


def make_cache(folder: Path) -> None:
    """A converted model with its checksums."""
    from models.formats.gguf import convert

    make_gguf(folder.with_name("gguf"))
    convert(folder.with_name("gguf") / "model.gguf", folder)
    shutil.rmtree(folder.with_name("gguf"))


def read_cache(folder: Path) -> Any:
    """What would be used; damage that is noticed is one line, and the model is converted anew."""
    from models.formats.storage import damage

    wrong = damage(folder)
    if wrong:
        raise ValueError(wrong)
    return {
        file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != "checksums.json"
    }


def make_table(suffix: str) -> Callable[[Path], None]:
    """A data file of one type."""

    def make(folder: Path) -> None:
        import gzip

        import pyarrow
        import pyarrow.parquet

        folder.mkdir()
        text = "".join(json.dumps({"question": row["question"], "answer": str(row["step"])}) + "\n" for row in ROWS)
        if suffix == "parquet":
            table = pyarrow.Table.from_pylist([json.loads(line) for line in text.splitlines()])
            pyarrow.parquet.write_table(table, folder / "data.parquet", write_page_checksum=True)
        elif suffix == "jsonl.gz":
            with gzip.open(folder / "data.jsonl.gz", "wb") as file:
                file.write(text.encode())
        else:
            (folder / "data.jsonl").write_text(text)

    return make


def read_table(suffix: str) -> Callable[[Path], Any]:
    """All rows of it."""

    def read(folder: Path) -> Any:
        from igrpo_jax.data.files import read_file

        rows = read_file(str(folder / f"data.{suffix}"))
        return [dict(rows.read(index)) for index in range(rows.size)]

    return read


KINDS = {
    "checkpoint": Kind(make_checkpoints, read_checkpoints, summed=True),
    "records": Kind(make_records, read_records, summed=True),
    "config.json of a run": Kind(make_config, read_config, summed=True, files="config*.json"),
    "config.json of a model": Kind(make_model, read_model, summed=False, files="config.json"),
    "safetensors": Kind(make_model, read_model, summed=False, files="*.safetensors"),
    "index file": Kind(make_model, read_model, summed=False, files="*.index.json"),
    "model cache": Kind(make_cache, read_cache, summed=True),
    "GGUF": Kind(make_gguf, read_gguf, summed=False),
    "JSONL": Kind(make_table("jsonl"), read_table("jsonl"), summed=False),
    "JSONL, gzip": Kind(make_table("jsonl.gz"), read_table("jsonl.gz"), summed=False),
    "Parquet": Kind(make_table("parquet"), read_table("parquet"), summed=False),
}


def judge(kind: Kind, folder: Path, right: Any) -> tuple[str, str]:
    """What came of reading damaged files, and a word on it."""

    def stop(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            found = kind.read(folder)
    except ValueError as error:
        return ("traceback", "several lines: " + repr(error)) if "\n" in str(error).strip() else ("named", str(error))
    except OSError as error:  # launch.py says it in one line
        return "named", str(error)
    except Hang:
        return "hang", ""
    except BaseException as error:
        return "traceback", repr(error)[:300]
    finally:
        signal.alarm(0)
    if found == right:
        return "same", ""
    return ("silent" if kind.summed else "changed"), ""


def run(count: int, seed: int, say: Callable[[str], None] = print) -> dict[str, Counter]:
    """Makes `count` corruptions, the kinds in turn; gives how often each outcome came, by kind."""
    dice, table = random.Random(seed), {name: Counter() for name in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        right, names = {}, list(KINDS)
        for name, kind in KINDS.items():
            home = Path(scratch) / "right" / name
            home.parent.mkdir(exist_ok=True)
            kind.make(home)
            shutil.copytree(home, Path(scratch) / "first" / name)
            right[name] = kind.read(Path(scratch) / "first" / name)
        for number in range(count):
            name = names[number % len(names)]
            kind, folder = KINDS[name], Path(scratch) / "damaged" / name
            shutil.copytree(Path(scratch) / "right" / name, folder)
            file = dice.choice(sorted(file for file in folder.glob(kind.files) if file.is_file()))
            harm = damage(file, dice)
            outcome, word = judge(kind, folder, right[name])
            table[name][outcome] += 1
            if outcome in ("traceback", "hang", "silent"):
                say(f"{outcome}: {name}, {file.relative_to(folder)}, {harm} (number {number}): {word}")
            shutil.rmtree(Path(scratch) / "damaged")
    return table


OUTCOMES = ("named", "same", "changed", "silent", "traceback", "hang")


def main() -> int:
    """Prints a table; exit status 1 if anything happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faulthandler.enable()
    started = time.monotonic()
    table = run(arguments.count, arguments.seed)
    print(f"| {arguments.count} corruptions, seed {arguments.seed} | " + " | ".join(OUTCOMES) + " |")
    print("|---" * (len(OUTCOMES) + 1) + "|")
    total = sum(table.values(), Counter())
    for name, counts in [*table.items(), ("all", total)]:
        print(f"| {name} | " + " | ".join(str(counts[outcome]) for outcome in OUTCOMES) + " |")
    print(f"{time.monotonic() - started:.0f} s")
    return int(any(total[bad] for bad in ("silent", "traceback", "hang")))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
