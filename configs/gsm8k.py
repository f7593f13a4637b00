"""Qwen2.5-0.5B-Instruct on GSM8K: the smallest run on a real benchmark, for one accelerator.

    python launch.py --config gsm8k.py --mesh 1x1
    python launch.py --config gsm8k.py --mesh 8x1 --model.source hf:Qwen/Qwen2.5-1.5B-Instruct --workdir runs/gsm8k-1.5b

Meant for one 80 GB accelerator (0.5B) or eight (1.5B). Not yet run by us, so no time and no number to expect are given.
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


def get_config() -> Config:
    """GSM8K with a small instruct model."""
    return Config(
        model=ModelConfig(source="hf:Qwen/Qwen2.5-0.5B-Instruct"),
        data=DataConfig(
            train=("gsm8k?split=train",),
            eval=("gsm8k",),
        ),
        prompt=PromptConfig(
            system="Please reason step by step, and put your final answer within \\boxed{}.",
            max_prompt_length=512,
            max_draft_length=512,
        ),
        sampling=SamplingConfig(max_completion_length=512, temperature=1.0),
        algorithm=AlgorithmConfig(num_drafts=8, num_generations=8),
        reward=RewardConfig(workers=8),
        optim=OptimConfig(learning_rate=1e-6),
        train=TrainConfig(steps=200, problems_per_step=64, micro_batch=8, save_every=50, eval_every=50),
        eval=EvalConfig(num_samples=1, temperature=0.0, top_p=1.0),
    )
