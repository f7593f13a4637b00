"""Our contestant, and all that the contests need of our own API: `python -m benchmarks.ours '<job as JSON>'`.

Tasks: `prepare` writes the weights and prompts that every contestant reads, `ceiling` measures what the machine could
do, `sample` draws completions, `step` does whole training steps (`igrpo_jax.train.train_step`).
"""

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.contest import BESIDE_DRAFT
from benchmarks.roofline import Point, least
from benchmarks.worker import Turns, compete, read_prompts, reward, versions
from igrpo_jax.config import AlgorithmConfig, Config, ModelConfig, SamplingConfig, TrainConfig
from igrpo_jax.records.machine.memory import peak_gb
from igrpo_jax.rewards import Scores
from igrpo_jax.sampling.programs import make_pool
from igrpo_jax.sampling.sampler import Sampler
from igrpo_jax.train import Run, train_step
from igrpo_jax.types import Problem, Shapes, alone
from jobs.arguments import Launch
from jobs.devices import start_devices
from jobs.parts import initial_policy, make_learner
from models import decoder
from models.formats.load import find
from models.formats.weights import export


def prepare(job: dict[str, Any], turns: Turns) -> None:
    """Writes `directory`/weights, a Hugging Face model in float32, and `directory`/prompts.json."""
    config = Config(model=ModelConfig(source=job["model"]))
    layout = start_devices(Launch(config="", mesh="1x1"))
    directory = Path(job["directory"])
    with layout.active():
        found = find(config.model.source)
        policy = initial_policy(config, layout, found)
        export(policy, directory / "weights", tokenizer=found.tokenizer, source=found.directory)
    prompts = {length: random_prompts(found.tokenizer, job["problems"], length) for length in job["lengths"]}
    (directory / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    turns.say(vocabulary=found.config.vocab_size, parameters=sum(x.size for x in jax.tree.leaves(policy)))


def ceiling(job: dict[str, Any], turns: Turns) -> None:
    """Says in how many seconds the stages, each a `roofline.Point`, could be sampled and trained on at best."""
    layout = start_devices(Launch(config="", mesh=job["mesh"]))
    config, shards = find(job["weights"]).config, layout.num_row_shards
    turns.say(stages=[least(config, Point(*stage), job["dtype"], shards) for stage in job["stages"]])


def random_prompts(tokenizer: Any, count: int, length: int) -> list[dict[str, Any]]:
    """Random words, each one token, behind the begin token: their text is tokenized to the same ids again."""
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    words = [token for token, text in enumerate(texts) if re.fullmatch(r" [a-z]+", text)]
    words = words or [token for token, text in enumerate(texts) if re.fullmatch(r"[a-z]", text)]
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    random = np.random.default_rng(0)
    rows = [begin + random.choice(words, length - len(begin)).tolist() for _ in range(count)]
    return [{"ids": row, "text": tokenizer.decode(row)} for row in rows]


def sample(job: dict[str, Any], turns: Turns) -> None:
    """Completions of every prompt; nothing stops early."""
    settings = SamplingConfig(max_completion_length=job["new"], temperature=1.0, top_p=job["top_p"])
    config = Config(model=ModelConfig(source=job["weights"], dtype=job["dtype"]), sampling=settings)
    layout = start_devices(Launch(config="", mesh=job["mesh"]))
    prompts = [prompt["ids"] for prompt in read_prompts(job)]
    with layout.active():
        found = find(config.model.source)
        view = make_learner(config, layout, found.config).view(initial_policy(config, layout, found))
        sampler = sampler_of(job, layout, found, groups=[job["samples"]], prompts=[job["prompt"]])
        turns.facts = facts(sampler, view, prompts, job)
        for number, _ in enumerate(turns):
            samples = sampler.complete(
                view, prompts, ids=range(len(prompts)), step=number, stage=1, num_samples=job["samples"],
                settings=settings,
            )  # fmt: skip
            turns.parts["tokens"] = int(samples.lengths.sum())


def step(job: dict[str, Any], turns: Turns) -> None:
    """Whole steps: GRPO with `samples` a prompt, or iGRPO with half of them drafts (`drafts` > 0)."""
    samples, drafts = job["samples"], job["drafts"]
    config = Config(
        model=ModelConfig(source=job["weights"], dtype=job["dtype"], remat=job["remat"]),
        sampling=SamplingConfig(max_completion_length=job["new"], temperature=1.0),
        algorithm=AlgorithmConfig(num_drafts=drafts, num_generations=samples - drafts),
        train=TrainConfig(micro_batch=job["micro_batch"]),
    )
    layout = start_devices(Launch(config="", mesh=job["mesh"]))
    prompts = [prompt["ids"] for prompt in read_prompts(job)]
    problems = [Problem(id=i, question=str(i), columns={}) for i in range(len(prompts))]
    with layout.active():
        found = find(config.model.source)
        learner = make_learner(config, layout, found.config)
        state = learner.init(initial_policy(config, layout, found))
        shapes = Shapes(job["prompt"], job["prompt"] + job["new"] + BESIDE_DRAFT, job["new"])
        groups = [n for n in (drafts, samples - drafts) if n]
        lengths = [shapes.prompt, shapes.refinement] if drafts else [shapes.prompt]
        sampler = sampler_of(job, layout, found, groups=groups, prompts=lengths)
        turns.facts = facts(sampler, learner.view(state.params), prompts, job)
        prompter: Any = FixedLengths(found.tokenizer, prompts)
        run = Run(
            config, layout, learner, sampler, sampler, prompter, score, shapes, lambda step: problems, {}, alone,
            shapes.refinement,
        )  # fmt: skip
        for number, _ in enumerate(turns):
            state, metrics, _ = train_step(run, state, number, None)
            turns.parts["sampling_s"] = metrics["time/draft_s"] + metrics.get("time/refine_s", 0.0)
            turns.parts["tokens"] = int(metrics["num_tokens"])


def sampler_of(job: dict[str, Any], layout: Any, found: Any, *, groups: list[int], prompts: list[int]) -> Sampler:
    """A sampler with the job's `rows` in flight, or all, which nothing stops early."""
    pool = make_pool(
        rows=job.get("rows", 0), problems=len(read_prompts(job)), groups=groups, shards=layout.num_row_shards,
        prompts=prompts, max_completion_length=job["new"],
    )  # fmt: skip
    return Sampler(decoder, layout, pool=pool, seed=0, stop_ids=[found.config.vocab_size], decode=str)


class FixedLengths:
    """Stands in for `igrpo_jax.prompts.Prompter`: given prompts, and stage two's as long as a draft makes them."""

    def __init__(self, tokenizer: Any, prompts: Sequence[list[int]]):
        self._prompts = prompts
        self.text = partial(tokenizer.decode, skip_special_tokens=True)

    def question(self, question: str) -> list[int]:
        """The prompt of that number."""
        return self._prompts[int(question)]

    def refinement(self, question: str, draft: Sequence[int], *, limit: int) -> list[int]:
        """Prompt, draft, and the start of the prompt again."""
        prompt = self.question(question)
        return [*prompt, *draft, *prompt[:BESIDE_DRAFT]]


def score(prompts: Sequence[str], completions: Sequence[str], columns: Any) -> Scores:
    """The contests' reward."""
    total = np.array([reward(text) for text in completions], np.float32)
    none = np.zeros(len(total), np.int32)
    return Scores(total, {"vowels": total}, [None] * len(total), [""] * len(total), none, none)


def facts(sampler: Sampler, view: Any, prompts: list[list[int]], job: dict[str, Any]) -> dict[str, Any]:
    """Device, versions, and the greedy continuation of the first prompt."""
    settings = SamplingConfig(max_completion_length=job["greedy"], temperature=0.0)
    samples = sampler.complete(view, prompts[:1], ids=[0], step=0, stage=1, num_samples=1, settings=settings)
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": versions("jax", "jaxlib", "flax", "optax", "numpy"),
        "greedy": samples.tokens[0, 0].tolist(),
    }


if __name__ == "__main__":
    compete({"prepare": prepare, "ceiling": ceiling, "sample": sample, "step": step}, peak_gb)
