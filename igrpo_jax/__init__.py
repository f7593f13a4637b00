"""iGRPO: the algorithm as pure functions over arrays. It imports neither the model nor the mesh."""

import importlib

_HOME = {
    "AlgorithmConfig": "config",
    "Batch": "types",
    "Config": "config",
    "Learner": "learner",
    "Model": "types",
    "Problem": "types",
    "Sampler": "sampling",
    "Samples": "types",
    "completion_logprobs": "logprobs",
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


def __getattr__(name: str):
    """Imports public names on first use, so that grader processes never load jax."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
