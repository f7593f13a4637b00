"""DeepSeek-R1-Distill-Qwen-7B on MATH with the paper's settings (arXiv 2602.09000, section 4).

    python launch.py --config math.py --mesh 8x1

The paper reports the mean of six benchmarks: 67.82 before, 68.29 with GRPO, 69.87 with iGRPO. This config evaluates on
MATH-500 alone; `--data.eval aime24 aime25 math500 amc23 gsm8k minerva` names all six. The GRPO control adds
`--algorithm.num-drafts 0 --algorithm.num-generations 8 --workdir runs/math-grpo`. Hardware in the paper: 16 A100-80GB,
94.1 GPU-hours (83.3 for GRPO). Not yet run by us.

"1,024 sequences a step" are read as sampled completions: 128 problems x (4 drafts + 4 refinements); one epoch of 7,500
problems is 58 steps.
"""

from igrpo_jax.config import (
    REASONING_SYSTEM,
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
    """The paper's 7B run on MATH."""
    return Config(
        model=ModelConfig(source="hf:deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        data=DataConfig(
            train=("math",),
            eval=("math500",),
        ),
        prompt=PromptConfig(system=REASONING_SYSTEM, max_prompt_length=1024, max_draft_length=4096),
        # 32 rows a device hold about 17 GB of keys and values at full length; the rest of the batch waits its turn.
        sampling=SamplingConfig(max_completion_length=4096, temperature=0.7, rows=32),
        algorithm=AlgorithmConfig(num_drafts=4, num_generations=4),
        reward=RewardConfig(functions=("accuracy", "format"), weights=(1.0, 1.0), workers=16),
        optim=OptimConfig(learning_rate=1e-6, warmup_ratio=0.1, final_lr_ratio=0.1),
        # A whole group at once: its prompt is computed once.
        train=TrainConfig(steps=58, problems_per_step=128, micro_batch=4, save_every=10),
        eval=EvalConfig(num_samples=8),
    )
