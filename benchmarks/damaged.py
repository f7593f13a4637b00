"""Files of every kind that a run reads: how they are made, and what a run sees of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


class Kind:
    """Files of one kind: `make(folder)` writes them, `read(folder)` gives what a run sees of them.

    Attributes:
      summed: whether a checksum exists, so that other values than before are wrong.
      files: which files in the folder are damaged.
    """

    def __init__(self, make: Callable, read: Callable, *, summed: bool, files: str = "**/*"):
        self.make, self.read, self.summed, self.files = make, read, summed, files


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
