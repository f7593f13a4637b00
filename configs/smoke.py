"""A tiny random model with a byte tokenizer: every part of a run in seconds, on any mesh up to eight devices.

    python launch.py --config smoke.py --mesh 8x1 --cpu-devices 8

It learns nothing worth knowing; the reward is whatever a random model happens to earn. Expect the same tokens and
losses on 1x1, 8x1, 4x2 and 2x4.
"""

from igrpo_jax.config import (
    AlgorithmConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    PromptConfig,
    RewardConfig,
    SamplingConfig,
    TrainConfig,
)


def even_share(prompts: list[str], completions: list[str], **columns: list) -> list[float]:
    """A reward of one's own, with TRL's signature: the share of characters with an even code point."""
    return [sum(ord(c) % 2 == 0 for c in text) / max(len(text), 1) for text in completions]


def get_config() -> Config:
    """The smoke test."""
    return Config(
        model=ModelConfig(source="random:tiny"),
        data=DataConfig(train=("arithmetic:sum?split=train",), eval=("arithmetic:sum?split=test&limit=8",)),
        prompt=PromptConfig(refine="{question}\n[{draft}]", max_prompt_length=48, max_draft_length=16),
        sampling=SamplingConfig(max_completion_length=12, temperature=1.0),
        algorithm=AlgorithmConfig(num_drafts=2, num_generations=4),
        reward=RewardConfig(functions=("configs.smoke:even_share", "ended"), workers=1),
        optim=OptimConfig(learning_rate=1e-4),
        train=TrainConfig(steps=4, problems_per_step=8, micro_batch=2, save_every=2, report=False),
        eval=EvalConfig(num_samples=2),
    )
