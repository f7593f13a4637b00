"""Hugging Face datasets: by id, saved with `save_to_disk`, or a directory of data files."""

from pathlib import Path
from typing import Any

from igrpo_jax.data.rows import Rows
from igrpo_jax.edges.user_code import path_of

_ELSEWHERE = "download it elsewhere with load_dataset(...).save_to_disk(dir), then hf:dir, or as file:x.parquet"


def read_hub(
    dataset: str, /, *, name: str | None = None, split: str | None = None, revision: str | None = None
) -> Rows:
    """Opens one split of a dataset with random access, memory-mapped.

    Args:
      dataset: id on the hub; or a directory, made by `save_to_disk` or holding Parquet, JSON or CSV files.
      name: configuration.
      split: split, or a slice of one (`train[:1000]`); train unless given.
      revision: branch, tag or commit on the hub.

    Raises:
      ValueError: if there is no such dataset, configuration or split, or no way to reach it.
    """
    path = path_of(dataset)
    if path.is_dir():
        if revision is not None:
            raise ValueError("a directory has no revision; leave revision= out")
        table = _from_disk(path, name, split) if _is_saved(path) else _load(str(path.resolve()), name, split, None)
    elif dataset.startswith(("/", ".", "~")):
        raise ValueError(f"no such directory; checked {path.absolute()}")
    else:
        table = _load(dataset, name, split, revision)
    return Rows(path.name, table.num_rows, table.column_names, table.__getitem__)


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").exists() or (path / "state.json").exists()


def _from_disk(path: Path, name: str | None, split: str | None) -> Any:
    import datasets

    if name is not None:
        raise ValueError("a dataset saved with save_to_disk has no configurations; leave name= out")
    try:
        table = datasets.load_from_disk(str(path))
    except Exception as error:  # Whatever a damaged directory makes the library raise.
        raise ValueError(f"{path} cannot be read ({_first_line(error)}); save the dataset again") from error
    if isinstance(table, datasets.DatasetDict):
        if (split or "train") not in table:
            raise ValueError(f"no split {split or 'train'!r}; set split= to one of {', '.join(map(str, table))}")
        return table[split or "train"]
    if split not in (None, str(table.split)):
        raise ValueError(f"it was saved as one table without the split {split!r}; leave split= out")
    return table


def _load(dataset: str, name: str | None, split: str | None, revision: str | None) -> Any:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        return datasets.load_dataset(dataset, name, split=split or "train", revision=revision)
    except ConnectionError as error:
        raise ValueError(f"no connection to the Hugging Face hub ({_first_line(error)}); {_ELSEWHERE}") from error
    except DatasetNotFoundError as error:
        raise ValueError(f"{_first_line(error)}; check the id, log in if it is gated, or {_ELSEWHERE}") from error
    except Exception as error:  # Configurations, splits, revisions, damaged files: the library says which.
        raise ValueError(
            f"{_first_line(error)}; set name=, split= or revision= accordingly, or {_ELSEWHERE}"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
