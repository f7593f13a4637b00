"""Sources of problems: indexable, of known length, read from a one-line description."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from igrpo_jax.data.arithmetic import read_arithmetic
from igrpo_jax.data.files import read_file
from igrpo_jax.data.gym import gym_options, read_gym
from igrpo_jax.data.hub import read_hub
from igrpo_jax.data.presets import columns_of, is_preset, opened
from igrpo_jax.data.rows import Mapped, Rows, check_columns, to_problem
from igrpo_jax.data.spec import nearest, option_types, parse_spec, typed
from igrpo_jax.data.tfds import read_tfds
from igrpo_jax.types import Problem

MAX_ROWS = 2**26
"""Rows a source may have, so that 64 sources have ids that fit 32 bits."""

FULL_SCAN = 2**14
"""Generated sources with more problems than this count as endless: they are not read through when loaded."""

_KINDS: dict[str, Callable[..., Rows]] = {
    "arithmetic": read_arithmetic,
    "gym": read_gym,
    "file": read_file,
    "hf": read_hub,
    "tfds": read_tfds,
}


@runtime_checkable
class Source(Protocol):
    """An indexable sequence of problems; a list of problems with a name would do.

    The id of a problem is an integer in [0, 2**26), its own within the source. A source that is too long to be read
    through may have an attribute `endless`, True.
    """

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Problem: ...


@dataclass(frozen=True, kw_only=True)
class Problems:
    """Rows seen as problems, in some order; a problem's id is its row's index."""

    name: str
    spec: str
    rows: Rows
    mapped: Mapped
    order: Sequence[int] | np.ndarray

    @property
    def endless(self) -> bool:
        """Whether there are too many problems to read them all before training."""
        return self.rows.generated and len(self.order) > FULL_SCAN

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Problem:
        if not 0 <= index < len(self.order):
            raise IndexError(f"{self.name} has {len(self.order)} problems, none at {index}")
        row = int(self.order[index])
        values = {**dict.fromkeys(self.rows.columns), **self.rows.read(row)}
        return to_problem(values, row, self.mapped, where=f"{self.spec}, row {row}")


def load_source(spec: str, *, question_column: str, answer_column: str) -> Source:
    r"""Opens the source that `kind:name?option=value&option=value` describes.

    | source | options |
    |---|---|
    | `arithmetic:sum`, `product` or `mix` | `split`, operand ranges: see `igrpo_jax.data.arithmetic` |
    | `gym:<reasoning-gym task>` | `size`, `seed`, and the task's own parameters |
    | `file:<path>`, a file, directory or pattern (`a/*.jsonl.gz`): see `igrpo_jax.data.tables` | |
    | `hf:<dataset id or directory>` | `name` (configuration), `split`, `revision` |
    | `tfds:<name or prepared directory>` | `split`, `data_dir` |
    | a bare name: a public set, see `igrpo_jax.data.presets` | `file`, `tfds` or `hf`: where to read it instead |

    Every kind also takes `question` and `answer` (columns, dotted where nested), `answer_after` (marker that the gold
    answer follows, `####` in GSM8K), `answer_boxed` (the gold answer is in the last `\boxed{}`), `shuffle_seed`,
    `offset`, `limit` (applied in this order), and `label` (name of the source in metrics and messages).

    Args:
      spec: the description.
      question_column: column of the question unless the source has its own; generated kinds have theirs.
      answer_column: column of the gold answer, likewise.

    Returns:
      The problems. Other columns are passed on; `columns["answer"]` is the gold answer as text, None where a row has
      none.

    Raises:
      ValueError: one line that names the fix, whatever is wrong.

    >>> load_source("arithmetic:product?split=test", question_column="question", answer_column="answer")[0].question
    'What is 3 * 8?'
    """
    kind, name, options, preset = opened(spec) if is_preset(spec) else (*parse_spec(spec), None)
    if kind not in _KINDS:
        raise ValueError(f"data source {spec!r}: unknown kind {kind!r}; {nearest(kind, _KINDS)}")
    read, common = _KINDS[kind], option_types(_view)
    try:
        known = gym_options(name) if kind == "gym" else option_types(read)
        values = typed(options, common | known)
        rows = read(name, **{key: value for key, value in values.items() if key not in common})
    except ValueError as error:
        raise ValueError(f"{spec}: {error}") from error
    settings: dict[str, Any] = {} if rows.generated else {"question": question_column, "answer": answer_column}
    if preset:
        settings = columns_of(preset, rows.columns, own_answer="answer" in values)
    settings |= {key: value for key, value in values.items() if key in common}
    return _view(rows, spec, **settings)


def _view(
    rows: Rows,
    spec: str,
    /,
    *,
    label: str | None = None,
    question: str = "question",
    answer: str = "answer",
    answer_after: str | None = None,
    answer_boxed: bool = False,
    shuffle_seed: int | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> Problems:
    """The window of the rows that the options shared by all kinds ask for."""
    if not 0 < rows.size <= MAX_ROWS:
        raise ValueError(f"{spec}: it has {rows.size} rows; a source must have 1 to {MAX_ROWS}, so take another part")
    if offset < 0 or (limit is not None and limit < 1) or (shuffle_seed is not None and shuffle_seed < 0):
        raise ValueError(f"{spec}: offset and shuffle_seed must be at least 0, limit at least 1")
    if offset >= rows.size:
        raise ValueError(f"{spec}: offset={offset} leaves nothing of {rows.size} rows; lower it")
    mapped = Mapped(question, answer, answer_after, answer_boxed)
    check_columns(rows, mapped, where=spec)
    order: Sequence[int] | np.ndarray = range(rows.size)
    if shuffle_seed is not None:
        order = np.random.default_rng(shuffle_seed).permutation(rows.size)
    order = order[offset:] if limit is None else order[offset : offset + limit]
    source = Problems(name=label or rows.name, spec=spec, rows=rows, mapped=mapped, order=order)
    source[0]  # A column of the wrong type shows here.
    return source
