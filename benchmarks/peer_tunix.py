"""Tunix, run by its own interpreter: its sampler and its GRPO learner.

    make peers; .venv-peers/tunix/bin/python -m benchmarks.peer_tunix '<job as JSON>'

Two patches: its Llama ignores the configured `rope_theta`, so the default of its rotary function is replaced; and it
takes prompts as text and puts the begin token in front, so it gets a tokenizer that reads the given ids and leaves the
begin token out. An end token that no vocabulary holds keeps completions from ending early.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tokenizers import Tokenizer
from tunix.generate.sampler import CacheConfig, Sampler  # pyright: ignore[reportMissingImports]
from tunix.models.llama3 import model as llama  # pyright: ignore[reportMissingImports]
from tunix.models.llama3 import params as llama_params  # pyright: ignore[reportMissingImports]

from benchmarks.worker import Turns, compete, read_prompts, reward, versions
from igrpo_jax.records.machine.memory import peak_gb

ROPE_DEFAULT = 1_000_000
"""What Tunix's rotary embedding uses whatever the model says."""


class Ids:
    """A tokenizer whose texts are token ids with spaces between; completions are decoded for real."""

    def __init__(self, weights: Path, special: dict[str, Any]):
        self._tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
        self._special = special

    def encode(self, text: str, **keywords: Any) -> list[int]:
        """The ids, without the begin token, which Tunix adds."""
        ids = [int(part) for part in text.split()]
        return ids[1:] if ids[0] == self.bos_id() else ids

    def decode(self, ids: list[int], **keywords: Any) -> str:
        """Text, special tokens left out."""
        return self._tokenizer.decode(ids)

    def bos_id(self) -> int | None:
        """The begin token."""
        return self._special["bos_token_id"]

    def eos_id(self) -> int:
        """The end token."""
        return self._special["eos_token_id"]

    def pad_id(self) -> int:
        """The padding token."""
        return self._special["pad_token_id"]


def load(job: dict[str, Any]) -> tuple[Any, Any, Ids]:
    """The policy, the mesh of its one device, and the tokenizer."""
    weights = Path(job["weights"])
    hf = json.loads((weights / "config.json").read_text())
    if hf["model_type"] != "llama":
        raise ValueError(f"this contestant loads Llama models only, not {hf['model_type']}")
    *others, default = llama.apply_rope.__defaults__
    if others or default != ROPE_DEFAULT:
        raise ValueError("Tunix's rotary embedding has changed; look again whether it needs the patch")
    llama.apply_rope.__defaults__ = (hf["rope_theta"],)
    config = llama.ModelConfig(
        num_layers=hf["num_hidden_layers"], vocab_size=hf["vocab_size"], embed_dim=hf["hidden_size"],
        hidden_dim=hf["intermediate_size"], num_heads=hf["num_attention_heads"], head_dim=hf["head_dim"],
        num_kv_heads=hf["num_key_value_heads"], rope_theta=hf["rope_theta"], norm_eps=hf["rms_norm_eps"],
        weight_tying=hf["tie_word_embeddings"], remat_config=llama.RematConfig[job.get("tunix_remat", "NONE")],
    )  # fmt: skip
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    with mesh:
        policy = llama_params.create_model_from_safe_tensors(
            str(weights), config, mesh, dtype=getattr(jnp, job["dtype"])
        )
    return policy, mesh, Ids(weights, hf)


def make_sampler(policy: Any, tokenizer: Ids, size: int) -> Sampler:
    """Tunix's sampler with a cache as small as it may be."""
    c = policy.config
    return Sampler(policy, tokenizer, CacheConfig(size, c.num_layers, c.num_kv_heads, c.head_dim))


def facts(policy: Any, tokenizer: Ids, texts: list[str], job: dict[str, Any]) -> dict[str, Any]:
    """Device, versions, and the greedy continuation of the first prompt."""
    sampler = make_sampler(policy, tokenizer, job["prompt"] + job["greedy"])
    drawn = sampler(
        texts[:1], max_generation_steps=job["greedy"], max_prompt_length=job["prompt"], temperature=0.0,
        eos_tokens=[policy.config.vocab_size],
    )  # fmt: skip
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": versions("google-tunix", "jax", "jaxlib", "flax", "optax"),
        "greedy": np.asarray(drawn.tokens[0]).tolist(),
        "prompt_tokens": [int(drawn.padded_prompt_tokens.shape[1])],
    }


def sample(job: dict[str, Any], turns: Turns) -> None:
    """Completions of every prompt, repeated as Tunix's own learner repeats them."""
    policy, mesh, tokenizer = load(job)
    texts = [" ".join(map(str, prompt["ids"])) for prompt in read_prompts(job)]
    with mesh:
        turns.facts = facts(policy, tokenizer, texts, job)
        sampler = make_sampler(policy, tokenizer, job["prompt"] + job["new"])
        for number, _ in enumerate(turns):
            drawn = sampler(
                [text for text in texts for _ in range(job["samples"])], max_generation_steps=job["new"],
                max_prompt_length=job["prompt"], temperature=1.0, top_p=job["top_p"], top_k=None, seed=number,
                eos_tokens=[policy.config.vocab_size],
            )  # fmt: skip
            turns.parts["tokens"] = sum(len(row) for row in drawn.tokens)


def step(job: dict[str, Any], turns: Turns) -> None:
    """GRPO steps: one optimizer step on all `problems x samples` completions."""
    from tunix.rl import rl_cluster  # pyright: ignore[reportMissingImports]
    from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner  # pyright: ignore[reportMissingImports]
    from tunix.rl.rollout.base_rollout import RolloutConfig  # pyright: ignore[reportMissingImports]

    policy, mesh, tokenizer = load(job)
    texts = [" ".join(map(str, prompt["ids"])) for prompt in read_prompts(job)]
    with mesh:
        turns.facts = facts(policy, tokenizer, texts, job)
    rollout = RolloutConfig(
        max_tokens_to_generate=job["new"], max_prompt_length=job["prompt"], kv_cache_size=job["prompt"] + job["new"],
        temperature=1.0, top_p=1.0, top_k=None, eos_tokens=[policy.config.vocab_size],
    )  # fmt: skip
    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6, b2=0.95, weight_decay=0.0)),
        eval_every_n_steps=10**6, max_steps=1000,
    )  # fmt: skip
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
    settings = rl_cluster.ClusterConfig(
        role_to_mesh=dict.fromkeys(roles, mesh), training_config=training, rollout_config=rollout
    )
    cluster = rl_cluster.RLCluster(actor=policy, tokenizer=tokenizer, cluster_config=settings)
    cluster.generate = counted(turns, turns.timed("sampling_s", cluster.generate))
    learner = GRPOLearner(
        rl_cluster=cluster, reward_fns=vowels,
        algo_config=GRPOConfig(num_generations=job["samples"], num_iterations=1, beta=0.0),
    )  # fmt: skip
    learner.train({"prompts": np.array(texts)} for _ in turns)


def counted(turns: Turns, generate: Callable) -> Callable:
    """The same function, the tokens it draws noted."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        drawn = generate(*arguments, **keywords)
        turns.parts["tokens"] = sum(len(row) for row in drawn.tokens)
        return drawn

    return call


def vowels(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """The contests' reward with Tunix's signature."""
    return [reward(text) for text in completions]


if __name__ == "__main__":
    compete({"sample": sample, "step": step}, peak_gb)
