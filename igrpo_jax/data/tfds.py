"""tensorflow-datasets, with random access and without TensorFlow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from igrpo_jax.data.rows import Rows
from igrpo_jax.data.spec import nearest
from igrpo_jax.edges.user_code import path_of

_PREPARE = 'prepare it elsewhere with builder.download_and_prepare(file_format="array_record") and name its directory'


def read_tfds(name: str, /, *, split: str = "train", data_dir: str | None = None) -> Rows:
    """Opens one split of a dataset whose files allow random access (array_record, parquet).

    Args:
      name: a prepared directory (`.../gsm8k/1.0.0`, which holds `dataset_info.json`), or a registered name with or
        without configuration and version (`ai2_arc/ARC-Challenge:1.0.0`), which is prepared if it is not yet.
      split: split, or a slice of one (`train[:10%]`).
      data_dir: where named datasets are kept, instead of the library's default.

    Raises:
      ValueError: if there is no such dataset, directory or split, or it cannot be prepared or read here.
    """
    import tensorflow_datasets as tfds

    path = path_of(name)
    is_path = path.is_dir() or name.startswith(("/", ".", "~"))
    if is_path and not (path / "dataset_info.json").is_file():
        raise ValueError(f"{path.absolute()} holds no dataset_info.json; name the directory of a prepared version")
    if is_path and data_dir is not None:
        raise ValueError("data_dir is for named datasets; leave it out where the name is a directory")
    try:
        if is_path:
            builder: Any = tfds.builder_from_directory(path)
            examples = builder.as_data_source(split=split)
        else:
            examples: Any = tfds.data_source(name, split=split, data_dir=data_dir and path_of(data_dir))
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise ValueError(f"no dataset {name!r}; {nearest(name.partition('/')[0], known)}") from error
    except NotImplementedError as error:
        raise ValueError(f"its files have no random access; {_PREPARE}") from error
    except ImportError as error:
        raise ValueError(f"it cannot be prepared without the package {error.name!r}; {_PREPARE}") from error
    except Exception as error:  # Splits, configurations, downloads, damaged files: the library says which.
        raise ValueError(f"{_one_line(error)}; check the split and the name, or {_PREPARE}") from error

    def read(index: int) -> Mapping[str, Any]:
        try:
            return _plain(examples[index])
        except Exception as error:  # Damaged files make the reader raise several types.
            raise ValueError(
                f"example {index} of {name} cannot be read ({_one_line(error)}); copy or prepare its directory again"
            ) from error

    columns = list(read(0)) if len(examples) else []
    return Rows(path.parent.name if is_path else path.name.partition(":")[0], len(examples), columns, read)


def _plain(value: Any) -> Any:
    """Strings instead of bytes and Python values instead of numpy's, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
