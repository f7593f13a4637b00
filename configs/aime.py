"""OpenReasoning-Nemotron-7B on AceReason-Math, evaluated on AIME 2024 and 2025 (arXiv 2602.09000, section 4).

    python launch.py --config aime.py --mesh 8x1

The paper reports AIME24 84.1 -> 85.62 and AIME25 77.9 -> 79.64 (mean of 64 samples, temperature 0.6, top-p 0.95), from
single-pass answers to the bare question. How long those may be it does not say; this model's are often longer than the
4,096 tokens of training, so evaluation has 32,768, before the first step and after the last: up to 126 million tokens
each, hours. `--eval.max-completion-length 0` does without. Hardware in the paper: 16 A100-80GB. Not yet run by us.

One epoch of about 49,600 problems (the count is printed when they are loaded) is 387 steps of 128 problems x
(4 drafts + 4 refinements) = 1,024 sampled completions.
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
    """The paper's run on AceReason-Math."""
    return Config(
        model=ModelConfig(source="hf:nvidia/OpenReasoning-Nemotron-7B"),
        data=DataConfig(
            train=("acereason",),
            eval=("aime24", "aime25"),
        ),
        prompt=PromptConfig(system=REASONING_SYSTEM, max_prompt_length=1024, max_draft_length=4096),
        # 32 rows a device hold about 17 GB of keys and values at full length; the rest of the batch waits its turn.
        sampling=SamplingConfig(max_completion_length=4096, temperature=0.7, rows=32),
        algorithm=AlgorithmConfig(num_drafts=4, num_generations=4),
        reward=RewardConfig(functions=("accuracy", "format"), weights=(1.0, 1.0), workers=16),
        optim=OptimConfig(learning_rate=1e-6, warmup_ratio=0.1, final_lr_ratio=0.1),
        # A whole group at once: its prompt is computed once.
        train=TrainConfig(steps=387, problems_per_step=128, micro_batch=4, save_every=20),
        eval=EvalConfig(num_samples=64, max_completion_length=32768),
    )
