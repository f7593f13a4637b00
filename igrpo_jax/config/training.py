"""How long training takes, in which portions, by which optimizer, and how its result is measured."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up, then a cosine to `final_lr_ratio`."""

    learning_rate: float = 1e-6
    """Peak learning rate."""
    warmup_ratio: float = 0.1
    """Share of the steps over which the rate rises from 0."""
    final_lr_ratio: float = 0.1
    """The rate at the last step, as a share of the peak."""
    beta1: float = 0.9
    """AdamW's first-moment decay."""
    beta2: float = 0.95
    """AdamW's second-moment decay."""
    adam_epsilon: float = 1e-8
    """AdamW's denominator term."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Global-norm clip."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, in what portions, and what is written down."""

    steps: int = 100
    """Rollouts to train on. With one of the limits below, how many they are expected to be: the learning rate follows
    what is expected, which is put right as the run goes on."""
    max_sampled_tokens: int = 0
    """The run ends with the step after which the tokens sampled in all its steps are nearest to this; 0: no limit."""
    max_trained_tokens: int = 0
    """The same for the tokens that it has trained on, in all iterations."""
    max_seconds: float = 0.0
    """The same for the seconds of its steps, without compiling, evaluations and checkpoints."""
    problems_per_step: int = 128
    """P; sequences a step are P x (num_drafts + num_generations)."""
    micro_batch: int = 1
    """Completions a device trains on at once; memory grows with it, results do not depend on it."""
    logprob_chunk: int = 512
    """Completion tokens whose logits a device holds at once."""
    save_every: int = 50
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 2
    """Checkpoints kept."""
    max_skipped: int = 5
    """Steps in a row whose loss or gradient may be infinite or NaN; each is left out, one more ends the run."""
    eval_every: int = 0
    """Steps between evaluations; 0 evaluates before the first and after the last step only."""
    sample_rows: int = 3
    """Problems a step whose samples are recorded in samples.jsonl, all their drafts and refinements; -1 is all, 0 none.
    On terminals a table shows some every 10 steps."""
    samples_mb: int = 1024
    """MiB that recorded samples may take, in samples.jsonl and what follows it; then the oldest go. 0 is no limit."""
    report: bool = True
    """Write report/report.html at the end, the run as a page to look at."""
    export: bool = True
    """Write a Hugging Face model to workdir/export at the end."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Evaluation on `data.eval`: avg@n with its standard error, pass@k, maj@k; bare, and refined at equal tokens."""

    num_samples: int = 4
    """n, answers a problem; with `refine` these are the refinements, and bare answers are drawn until they have taken
    as many tokens as drafts and refinements together."""
    problems: int = 0
    """Problems of each set, the first ones; 0 is all."""
    temperature: float = 0.6
    """Sampling temperature."""
    top_p: float = 0.95
    """Sampling nucleus."""
    max_completion_length: int = 0
    """Tokens of an answer, the end token included; 0 is as in training. Longer ones than that, or a number of samples
    that no group of training fits, compile programs of their own, with no more keys and values than training has."""
    refine: bool = False
    """Also answer with an own draft in the prompt."""
    num_drafts: int = 4
    """N, drafts a problem, of which one is chosen."""
    select: Literal["majority", "random", "shortest", "judge", "best"] = "majority"
    """Which draft: one with the most frequent answer, any, the shortest, or the one to which the reward `judge` gives
    most; best sees the gold answers, which nobody has at test time: an upper bound, and marked as such."""
    rounds: int = 1
    """Rounds of refinement; in each but the first a refinement is the draft."""
