"""iGRPO: the algorithm as pure functions over arrays. It imports neither the model nor the mesh."""

import importlib
import sys
from types import ModuleType

_HOME = {
    "AlgorithmConfig": "config",
    "Batch": "types",
    "Config": "config",
    "Learner": "learning.learner",
    "Model": "protocols",
    "Problem": "types",
    "Sampler": "sampling.sampler",
    "Samples": "types",
    "completion_logprobs": "learning.logprobs",
    "group_advantages": "advantages",
    "igrpo_loss": "losses",
    "rollout": "rollout",
    "select_draft": "advantages",
    "token_weights": "losses",
    "train": "train",
}

__all__ = [
    "AlgorithmConfig",
    "Batch",
    "Config",
    "Learner",
    "Model",
    "Problem",
    "Sampler",
    "Samples",
    "completion_logprobs",
    "group_advantages",
    "igrpo_loss",
    "rollout",
    "select_draft",
    "token_weights",
    "train",
]


class _Public(ModuleType):
    """Keeps `rollout` and `train` the functions, also once the files of these names have been imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Public


def __getattr__(name: str):
    """Imports public names on first use, so that grader processes never load jax."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
