"""Directories as runs leave them, made without a model; seeds make them alike every time."""

import json
import random
from pathlib import Path

from igrpo_jax.config import AlgorithmConfig, Config, TrainConfig, to_dict

WORDS = "so the sum is then we add take away carry over first second half twice and get check again total".split()


def completion(text: str, reward: float, *, right: bool | None = None, reason: str = "unequal", **more) -> dict:
    """A completion as `sample_record` writes it."""
    made = {
        "text": text,
        "tokens": len(text.split()) + 1,
        "ended": True,
        "reward": reward,
        "rewards": {"accuracy": reward},
    }
    made |= {"right": reward >= 1 if right is None else right, "parsed": text.split()[-1] if text else None}
    return made | {"reason": "number" if reward >= 1 else reason, "advantage": 0.5 - reward} | more


def sample(
    step: int, problem: int, drafts: list[dict], refinements: list[dict], chosen: int = 0, question: str = ""
) -> dict:
    """A sample of two stages."""
    first = {"stage": 0, "draft": None, "completions": drafts}
    second = {"stage": 1, "draft": [0, chosen], "completions": refinements}
    question = question or f"What is {problem} + {step}?"
    return {
        "step": step,
        "problem": problem,
        "question": question,
        "gold": str(problem + step),
        "stages": [first, second],
    }


def random_sample(dice: random.Random, step: int, problem: int, words: int = 12) -> dict:
    """A sample with texts of about so many words, and every kind of outcome now and then."""
    gold = problem + step

    def drawn(odds: float) -> dict:
        right = dice.random() < odds
        text = " ".join(dice.choices(WORDS, k=words)) + f" {gold if right else gold + dice.randint(1, 9)}"
        made = completion(text, float(right), reason="timeout" if dice.random() < 0.01 else "unequal")
        return made | {"ended": dice.random() < 0.9}

    drafts = [drawn(0.4) for _ in range(4)]
    chosen = max(range(4), key=lambda k: drafts[k]["reward"])
    refinements = [dict(drafts[chosen]) if dice.random() < 0.2 else drawn(0.6) for _ in range(4)]
    return sample(step, problem, drafts, refinements, chosen)


def run(workdir: Path, *, steps: int = 12, seed: int = 0, samples: int = 3, words: int = 12, **algorithm) -> Path:
    """A finished run of so many steps with so many samples a step."""
    dice = random.Random(seed)
    workdir.mkdir(parents=True)
    config = Config(seed=seed, train=TrainConfig(steps=steps), algorithm=AlgorithmConfig(**algorithm))
    record = {"config": to_dict(config), "architecture": {"layers": 2}, "data": {"arithmetic:sum": [90, "f00d"]}}
    (workdir / "config.json").write_text(json.dumps(record))
    with (workdir / "metrics.jsonl").open("w") as file:
        for step in range(steps + 1):
            if step:
                file.write(json.dumps({"step": step} | _metrics(dice, step / steps)) + "\n")
            if step in (0, steps):
                share = 0.2 + 0.5 * step / steps
                scores = {
                    "avg@4": share,
                    "avg@4_stderr": 0.03,
                    "pass@1": share,
                    "pass@4": share + 0.2,
                    "maj@4": share + 0.05,
                }
                file.write(
                    json.dumps({"step": step} | {f"eval/held out/{name}": v for name, v in scores.items()}) + "\n"
                )
    with (workdir / "samples.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            for problem in range(samples):
                file.write(json.dumps(random_sample(dice, step, problem, words)) + "\n")
    return workdir


def _metrics(dice: random.Random, share: float) -> dict:
    near = lambda value: round(value + dice.uniform(-0.05, 0.05), 4)
    return {
        "reward": near(0.5 + 0.4 * share), "draft/reward": near(0.3 + 0.5 * share),
        "draft/reward_best": near(0.6 + 0.3 * share),
        "completions/mean_length": near(20 - 8 * share), "draft/completions/mean_length": near(22 - 8 * share),
        "completions/clipped_ratio": near(0.2), "entropy": near(0.9 - 0.5 * share), "grad_norm": near(5.0), "kl": 0.0,
        "refine/fixed": near(0.3), "refine/broken": near(0.2), "refine/copied": near(0.4), "refine/gain": near(0.1),
        "refine/zero_std_right": near(0.2 + 0.4 * share), "refine/zero_std_wrong": near(0.2), "num_tokens": 1000.0,
        "frac_reward_zero_std": near(0.4), "draft/frac_reward_zero_std": near(0.1),
        "sampling/logp_difference/mean": 1e-4,
        "time/draft_s": 2.0, "time/refine_s": 3.0, "time/wait_s": 0.5, "time/update_s": 4.0, "time/grade_s": 0.25,
        "step_time": 10.0, "tokens_per_s/sample": near(200), "tokens_per_s/train": near(125), "train/tokens": 500.0,
        "memory/peak_gb": 6.5,
    }  # fmt: skip
