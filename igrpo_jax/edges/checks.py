"""Which values of a config are refused before anything starts."""

import dataclasses
import math
import re
import types
import typing
from datetime import date
from operator import attrgetter
from typing import Any

from igrpo_jax.config import Config, JudgeConfig, PromptConfig, extra_problems
from igrpo_jax.edges.secrets import refuse_keys

AT_LEAST = {
    "seed": 0,
    "algorithm.num_drafts": 0,
    "algorithm.num_generations": 2,
    "algorithm.num_iterations": 1,
    "algorithm.rounds": 1,
    "algorithm.extra_problems": 0,
    "algorithm.draft_weight": 0,
    "algorithm.beta": 0,
    "algorithm.overlong_buffer": 0,
    "sampling.max_completion_length": 1,
    "sampling.top_k": 0,
    "sampling.rows": 0,
    "prompt.max_prompt_length": 1,
    "prompt.max_draft_length": 1,
    "train.steps": 1,
    "train.max_sampled_tokens": 0,
    "train.max_trained_tokens": 0,
    "train.max_seconds": 0,
    "train.problems_per_step": 1,
    "train.micro_batch": 1,
    "train.logprob_chunk": 1,
    "train.save_every": 1,
    "train.keep": 1,
    "train.max_skipped": 0,
    "train.eval_every": 0,
    "train.sample_rows": -1,
    "train.samples_mb": 0,
    "eval.num_samples": 1,
    "eval.num_drafts": 1,
    "eval.rounds": 1,
    "eval.problems": 0,
    "eval.max_completion_length": 0,
    "eval.temperature": 0,
    "reward.workers": 1,
    "reward.memory_mb": 1,
    "judge.best_score": 1,
    "judge.retries": 0,
    "judge.concurrency": 1,
    "judge.max_failures": 1,
    "optim.learning_rate": 0,
    "optim.weight_decay": 0,
}
"""The least value of a field."""

ABOVE_ZERO = {
    "sampling.temperature": "equal completions teach nothing; greedy evaluation is eval.temperature 0",
    "algorithm.epsilon_high": "leave it out for epsilon",
    "reward.deadline": "in seconds",
    "reward.call_deadline": "in seconds",
    "judge.timeout": "in seconds",
    "optim.adam_epsilon": "it keeps AdamW from dividing by 0",
    "optim.max_grad_norm": "0 would freeze training; for no clipping give a large one",
}
"""Fields that must be above 0, or left out where they can be, with the reason."""

SHARES = {
    "sampling.top_p": ("above 0 and at most 1", lambda x: 0 < x <= 1),
    "eval.top_p": ("above 0 and at most 1", lambda x: 0 < x <= 1),
    "optim.warmup_ratio": ("at least 0 and at most 1", lambda x: 0 <= x <= 1),
    "optim.final_lr_ratio": ("at least 0 and at most 1", lambda x: 0 <= x <= 1),
    "sampling.min_p": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "optim.beta1": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "optim.beta2": ("at least 0 and below 1", lambda x: 0 <= x < 1),
    "algorithm.replay": ("at least 0 and at most 1", lambda x: 0 <= x <= 1),
    "algorithm.epsilon": ("above 0 and at most 1", lambda x: 0 < x <= 1),
}
"""Fields between 0 and 1: in words, and as a test."""


READERS = ("accuracy", "gym")
"""Reward functions that say which answer they have read."""

TAKEN = {"conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message", "return_dict"}
"""What a chat template is given in any case, and options of rendering it that would not give a prompt."""


def check(config: Config) -> None:
    """Refuses values that cannot be meant.

    Raises:
      ValueError: names the field, its value and what it may be.
    """
    check_types(config)
    refuse_keys(config)
    for name, low in AT_LEAST.items():
        value = attrgetter(name)(config)
        if not value >= low or not math.isfinite(value):
            raise ValueError(f"{name} is {value}; it must be at least {low}")
    for name, (words, holds) in SHARES.items():
        value = attrgetter(name)(config)
        if not holds(value):
            raise ValueError(f"{name} is {value}; it must be {words}")
    for name, why in ABOVE_ZERO.items():
        value = attrgetter(name)(config)
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}; it must be above 0 ({why})")
    _check_together(config)


def check_types(config: Any, section: str = "") -> None:
    """Refuses values of another type than their field's, which a config file may hold.

    Raises:
      ValueError: names the field, its value and what it may be.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value, kind = f"{section}{field.name}", getattr(config, field.name), hints[field.name]
        if not _fits(value, kind):
            raise ValueError(f"{name} is {value!r}; it must be {_words(kind)}")
        if dataclasses.is_dataclass(value):
            check_types(value, f"{name}.")
        for text in value if isinstance(value, tuple) else (value,):
            _check_text(name, text)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; whole numbers are numbers too, and truth values are none."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return isinstance(value, str) and value in args
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, args[0]) and _fits(v, args[1]) for k, v in value.items())
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    """What a value of an annotated type is, for an error message."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return f"one of {', '.join(args)}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_words, args))
    if origin is tuple:
        return {str: "a tuple of texts, like ('one',) or ('one', 'two')", float: "a tuple of numbers, like (1.0,)"}[
            args[0]
        ]
    if origin is dict:
        return f"a dict from {_words(args[0])} to {_words(args[1])}"
    plain = {int: "a whole number", float: "a number", str: "text", bool: "True or False", types.NoneType: "None"}
    return plain.get(kind) or f"a {kind.__name__}(...)"


def _check_text(name: str, value: Any) -> None:
    """Refuses text that no file and no tokenizer takes."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is {value!a}, which holds half a character; write that text anew") from None


def _check_together(config: Config) -> None:
    """Refuses fields that do not go together."""
    a, r, data = config.algorithm, config.reward, config.data
    if a.draft_weight > 0 and a.num_drafts == 1:
        raise ValueError("algorithm.num_drafts is 1; with a draft_weight it must be at least 2, for one has no spread")
    if a.rounds > 1 and not a.num_drafts:
        raise ValueError(f"algorithm.rounds is {a.rounds} with num_drafts 0; without drafts there is nothing to refine")
    _check_variants(config)
    if not all(map(math.isfinite, r.weights)) or (r.weights and not any(r.weights)):
        raise ValueError(f"reward.weights are {r.weights}; they must be finite and not all 0")
    if r.weights and len(r.weights) != len(r.functions):
        raise ValueError(f"reward.weights has {len(r.weights)} numbers for {len(r.functions)} functions; give one each")
    if data.mixture and len(data.mixture) != len(data.train):
        n = len(data.train)
        raise ValueError(f"data.mixture has {len(data.mixture)} numbers for {n} training sources; give one each")
    _check_evaluation(config)
    if "" in config.sampling.stop_strings:
        raise ValueError(
            "sampling.stop_strings holds an empty text, which ends all completions at once; leave it out for none"
        )
    _check_template(config.prompt)
    if "judge" in r.functions:
        check_judge(config.judge)
    for name, template in {"question": config.prompt.question, "refine": config.prompt.refine}.items():
        if "{question}" not in template:
            raise ValueError(f"prompt.{name} has no {{question}}; put it where the question goes")
    if "{draft}" not in config.prompt.refine and (a.num_drafts or config.eval.refine):
        raise ValueError(
            "prompt.refine has no {draft}; put it where the draft goes, or set algorithm.num_drafts=0 and leave "
            "eval.refine out"
        )


def _check_evaluation(config: Config) -> None:
    """Refuses a selection that has nothing to go by."""
    functions = config.reward.functions
    if config.eval.refine and config.eval.select == "majority" and not set(READERS) & set(functions):
        raise ValueError(
            f"eval.select is majority, but none of reward.functions ({', '.join(functions)}) reads answers: add "
            f"{' or '.join(READERS)}, or select random or shortest"
        )
    if config.eval.refine and config.eval.select == "judge":
        if "judge" not in functions:
            raise ValueError(
                f"eval.select is judge, but reward.functions ({', '.join(functions)}) has none; add judge, with the "
                "weight 0 in reward.weights if it is not to be rewarded"
            )
        if "{answer}" in config.judge.prompt:
            raise ValueError(
                "eval.select is judge, and judge.prompt shows it the gold answer, which nobody has at test time; take "
                "{answer} out, or select best"
            )


def _check_variants(config: Config) -> None:
    """Refuses variants of the algorithm that mean nothing together."""
    a = config.algorithm
    if a.beta > 0 and (a.kl_estimator, a.kl_in) == ("k1", "loss"):
        raise ValueError(
            "algorithm.kl_estimator is k1 with kl_in loss, whose gradient does not know the reference; take k2, whose "
            "gradient is that of KL, or k3, or kl_in reward"
        )
    if a.overlong_buffer > (limit := config.sampling.max_completion_length):
        raise ValueError(
            f"algorithm.overlong_buffer is {a.overlong_buffer} of sampling.max_completion_length {limit} tokens; "
            "it must be at most that"
        )
    if a.select != "best" and not a.num_drafts:
        raise ValueError(
            f"algorithm.select is {a.select} with num_drafts 0; without drafts none is selected; leave it out"
        )
    if a.skip_solved and not a.num_drafts:
        raise ValueError(
            "algorithm.skip_solved is True with num_drafts 0; without drafts there is no stage to skip: take "
            "dynamic_sampling, which leaves solved problems out too"
        )
    chooses = "skip_solved" if a.skip_solved else f"select {a.select}" if a.select == "wrong_first" else ""
    if chooses and "judge" in config.reward.functions[:1] and not set(READERS) & set(config.reward.functions):
        raise ValueError(
            f"algorithm.{chooses} asks which drafts are right, which none of {config.reward.functions} says: "
            f"a judge gives a score and no verdict; add {' or '.join(READERS)}"
        )
    if a.replay and not (a.num_drafts and a.select == "best"):
        reason = f"select {a.select}" if a.num_drafts else "num_drafts 0"
        raise ValueError(
            f"algorithm.replay is {a.replay:g} with {reason}; what is replayed are the best of earlier "
            "drafts, so it needs select best and num_drafts above 0"
        )
    if a.dynamic_sampling and not extra_problems(config):
        raise ValueError(
            f"algorithm.dynamic_sampling is True with extra_problems {a.extra_problems:g}, which allows no further "
            "problem a step; give it a multiple of problems_per_step, like 1.0"
        )


def check_judge(judge: JudgeConfig) -> None:
    """Refuses a judge that cannot be asked.

    Raises:
      ValueError: names the field, its value and what it may be.
    """
    if not judge.model:
        raise ValueError("judge.model is empty; give the name by which judge.base_url knows the model that judges")
    if judge.model == "policy":
        raise ValueError(
            "judge.model is 'policy', but the policy does not judge itself in the run that trains it; serve a model of "
            "its own (docs/judge.md) and give its name"
        )
    if not re.match(r"https?://[^\s/]+", judge.base_url):
        raise ValueError(f"judge.base_url is {judge.base_url!r}; it must be an address like http://localhost:8000/v1")
    if "{completion}" not in judge.prompt:
        raise ValueError("judge.prompt has no {completion}; put it where what is to be judged goes")


def _check_template(prompt: PromptConfig) -> None:
    """Refuses what a chat template cannot be given."""
    try:
        date.fromisoformat(prompt.date)
    except ValueError:
        raise ValueError(f"prompt.date is {prompt.date!r}; it must be a day, like 2025-01-31") from None
    taken = sorted(TAKEN & prompt.chat_template_kwargs.keys())
    if taken:
        raise ValueError(f"prompt.chat_template_kwargs has {', '.join(taken)}, which is given already; leave it out")
