"""Problems to train and evaluate on: `load_source` reads them, `usable` sorts them out, `make_batches` draws them."""

from igrpo_jax.data.batches import make_batches
from igrpo_jax.data.filter import Report, usable
from igrpo_jax.data.problems import Data, load_problems
from igrpo_jax.data.source import Source, load_source

__all__ = ["Data", "Report", "Source", "load_problems", "load_source", "make_batches", "usable"]
