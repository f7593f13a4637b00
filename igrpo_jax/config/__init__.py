"""An experiment as values: nested frozen dataclasses, one default a field; `edges.checks` refuses what cannot be meant.

Names follow TRL where TRL has one. Totals only: nothing here knows how many devices there are.
"""

from dataclasses import dataclass, field

from igrpo_jax.config.algorithm import AlgorithmConfig, SamplingConfig
from igrpo_jax.config.plain import fields, to_dict
from igrpo_jax.config.task import (
    REASONING_SYSTEM,
    DataConfig,
    JudgeConfig,
    ModelConfig,
    PromptConfig,
    RewardConfig,
)
from igrpo_jax.config.training import EvalConfig, OptimConfig, TrainConfig

__all__ = [
    "REASONING_SYSTEM",
    "AlgorithmConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "JudgeConfig",
    "ModelConfig",
    "OptimConfig",
    "PromptConfig",
    "RewardConfig",
    "SamplingConfig",
    "TrainConfig",
    "extra_problems",
    "fields",
    "to_dict",
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    seed: int = 0
    """Seed of every random number of the run."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def extra_problems(config: Config) -> int:
    """How many problems a step may draw in place of such as are not worth training on."""
    algorithm = config.algorithm
    on = algorithm.skip_solved or algorithm.dynamic_sampling
    return round(algorithm.extra_problems * config.train.problems_per_step) if on else 0
