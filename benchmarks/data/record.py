"""Records how long completions get: SmolLM2-135M on grade-school word problems, two stages, as lengths.json.

    PYTHONPATH=. python benchmarks/data/record.py

Some ten minutes on two cores. `benchmarks/rollout.py` replays the lengths, problem by problem.
"""

import dataclasses
import json
from pathlib import Path

import jax

from igrpo_jax.config import AlgorithmConfig, Config, DataConfig, PromptConfig, SamplingConfig, TrainConfig
from igrpo_jax.rewards import load_rewards
from igrpo_jax.rollout import rollout
from igrpo_jax.train import sampling
from jobs.arguments import Launch
from jobs.devices import start_devices
from jobs.parts import assemble, initial_policy
from models.formats.load import find

CONFIG = Config(
    data=DataConfig(train=("gym:gsm_symbolic?size=64&seed=0",)),
    prompt=PromptConfig(max_prompt_length=256, max_draft_length=512),
    sampling=SamplingConfig(max_completion_length=512, temperature=0.7, rows=32),
    algorithm=AlgorithmConfig(num_drafts=8, num_generations=8),
    train=TrainConfig(problems_per_step=24),
)


def main() -> None:
    """One rollout of the untrained model, its lengths written down."""
    layout = start_devices(Launch(config=""))
    with layout.active(), load_rewards(CONFIG.reward) as reward:
        found = find(CONFIG.model.source)
        run = assemble(CONFIG, layout, found, reward)
        view = jax.block_until_ready(run.learner.view(initial_policy(CONFIG, layout, found)))
        result = rollout(
            run.batches(0), sample=sampling(run.sampler, view, CONFIG.sampling), reward=reward, prompter=run.prompter,
            config=CONFIG.algorithm, seed=0, step=0, refinement_limit=run.refinement_limit,
        )  # fmt: skip
    assert result.drafts is not None
    record = {
        "config": dataclasses.asdict(CONFIG),
        "prompts": [[len(p) for p in stage.prompts] for stage in (result.drafts, result.refinements)],
        "completions": [stage.samples.lengths.tolist() for stage in (result.drafts, result.refinements)],
    }
    path = Path(__file__).with_name("lengths.json")
    path.write_text(json.dumps(record) + "\n")
    print(f"{path}: {result.usage}")


if __name__ == "__main__":
    main()
