"""The PyTorch peers, run by their own interpreter: transformers' `generate` and TRL's GRPO trainer.

    make peers; .venv-peers/torch/bin/python -m benchmarks.peer_torch '<job as JSON>'

No patch is needed. An end token that no vocabulary holds keeps completions from ending early, in both.
"""

import sys
import tempfile
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, TrainerCallback

from benchmarks.worker import Turns, compete, read_prompts, resident_gb, reward, versions


def load(job: dict[str, Any]) -> Any:
    """The policy, on the GPU where there is one, with float32 matmuls as JAX does them there."""
    torch.set_num_threads(job["threads"])
    place = "cuda" if torch.cuda.is_available() else "cpu"
    if place == "cuda":  # elsewhere this could change matmuls that JAX does in float32
        torch.set_float32_matmul_precision("high")
    model: Any = AutoModelForCausalLM.from_pretrained(job["weights"], dtype=getattr(torch, job["dtype"]))
    return model.to(place).eval()


def generate(model: Any, ids: list[list[int]], **settings: Any) -> Any:
    """New tokens of prompts of one length; what is not set here is switched off, not left to defaults."""
    prompts = torch.tensor(ids, device=model.device)
    never = model.config.vocab_size
    off = {"top_k": 0, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0}
    pad = model.config.pad_token_id or 0
    model.generation_config = GenerationConfig(**(off | settings), eos_token_id=never, pad_token_id=pad)
    with torch.inference_mode():
        return model.generate(prompts, attention_mask=torch.ones_like(prompts))[:, prompts.shape[1] :]


def facts(model: Any, ids: list[list[int]], job: dict[str, Any], *packages: str) -> dict[str, Any]:
    """Device, versions, and the greedy continuation of the first prompt."""
    greedy = generate(model, ids[:1], do_sample=False, max_new_tokens=job["greedy"])[0].tolist()
    return {"device": str(model.device), "versions": versions("torch", "transformers", *packages), "greedy": greedy}


def sample(job: dict[str, Any], turns: Turns) -> None:
    """Completions of every prompt, as `num_return_sequences`."""
    model = load(job)
    ids = [prompt["ids"] for prompt in read_prompts(job)]
    turns.facts = facts(model, ids, job)
    for number, _ in enumerate(turns):
        torch.manual_seed(number)
        rows = generate(
            model, ids, do_sample=True, temperature=1.0, top_p=job["top_p"], max_new_tokens=job["new"],
            num_return_sequences=job["samples"],
        )  # fmt: skip
        turns.parts["tokens"] = rows.cpu().numel()


class Waiting(TrainerCallback):
    """Starts a step of the trainer when it is told to."""

    def __init__(self, turns: Turns):
        self._turns = iter(turns)

    def on_step_begin(self, *arguments: Any, **keywords: Any) -> None:
        """Answers for the last step and waits."""
        if next(self._turns, self) is self:
            sys.exit()


def step(job: dict[str, Any], turns: Turns) -> None:
    """GRPO steps: one optimizer step on all `problems x samples` completions, which is the fastest where it fits.

    With bfloat16 it is mixed precision, as TRL loads a model that it is given by name: float32 weights and moments.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    model, tokenizer = load(job | {"dtype": "float32"}), AutoTokenizer.from_pretrained(job["weights"])
    prompts, mixed = read_prompts(job), job["dtype"] == "bfloat16"
    with torch.autocast(model.device.type, torch.bfloat16, enabled=mixed):
        turns.facts = facts(model, [prompt["ids"] for prompt in prompts], job, "trl", "accelerate", "datasets")
    turns.facts["prompt_tokens"] = [len(tokenizer(prompt["text"]).input_ids) for prompt in prompts]
    never = model.config.vocab_size
    with tempfile.TemporaryDirectory() as scratch:
        config = GRPOConfig(
            output_dir=scratch, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
            use_cpu=model.device.type == "cpu", bf16=mixed, dataloader_pin_memory=False,
            beta=0.0, num_iterations=1, loss_type="grpo", learning_rate=1e-6, temperature=1.0, shuffle_dataset=False,
            per_device_train_batch_size=len(prompts) * job["samples"], gradient_accumulation_steps=1,
            num_generations=job["samples"], max_completion_length=job["new"], max_steps=1000,
            gradient_checkpointing=job["checkpointing"], generation_kwargs={"eos_token_id": never},
        )  # fmt: skip

        def vowels(completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float]:
            turns.parts["tokens"] = sum(len(row) for row in completion_ids)
            return [reward(text) for text in completions]

        trainer = GRPOTrainer(
            model=model, args=config, processing_class=tokenizer, callbacks=[Waiting(turns)], reward_funcs=vowels,
            train_dataset=Dataset.from_dict({"prompt": [prompt["text"] for prompt in prompts] * 100}),
        )  # fmt: skip
        trainer.eos_token_ids = [never]
        trainer._generate = turns.timed("sampling_s", trainer._generate)
        trainer.train()


def peak_gb() -> float:
    """What `igrpo_jax.records.machine.memory.peak_gb` is of JAX: bytes in use, not those that the allocator keeps."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else resident_gb()


if __name__ == "__main__":
    compete({"sample": sample, "step": step}, peak_gb)
