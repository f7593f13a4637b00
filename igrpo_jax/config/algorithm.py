"""How completions are drawn, and what the algorithm makes of them."""

from dataclasses import dataclass
from typing import Literal

from igrpo_jax.config.plain import today


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How completions are drawn."""

    max_completion_length: int = 4096
    """Tokens of a completion, the end token included."""
    temperature: float = 0.7
    """Softmax temperature; 0 is greedy."""
    top_p: float = 1.0
    """Nucleus: the smallest set of most probable tokens that holds this much probability."""
    top_k: int = 0
    """Only the k most probable tokens; 0 is off."""
    min_p: float = 0.0
    """Only tokens at least this fraction as probable as the most probable one."""
    rows: int = 0
    """Completions a device decodes at once; key/value memory grows with it, results do not depend on it. 0: all of a
    stage's, which is best while memory lasts and completions are about equally long."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end a completion besides the end-of-turn tokens."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """iGRPO; `num_drafts = 0` is GRPO."""

    num_drafts: int = 4
    """N, drafts a problem in stage one."""
    num_generations: int = 4
    """G, trained completions a problem."""
    select: Literal["best", "worst", "random", "none", "wrong_first"] = "best"
    """Which draft conditions stage two; none leaves the draft out (a control). wrong_first: a wrong one where there is
    one, else any."""
    tie_break: Literal["random", "first", "shortest", "longest"] = "random"
    """Which of several equally good drafts is taken."""
    rounds: int = 1
    """Refinement rounds a problem: in each but the first the best refinement so far is the draft. The last one is
    trained on."""
    skip_solved: bool = False
    """A problem all of whose drafts are right is not refined: another one takes its place."""
    dynamic_sampling: bool = False
    """A problem whose trained completions are all worth the same is left out: another one takes its place (DAPO)."""
    extra_problems: float = 1.0
    """Most problems that a step may draw for such places, in multiples of problems_per_step."""
    replay: float = 0.0
    """Probability that stage two gets the best draft of earlier steps of a problem that has one, where that is at least
    as good as the one it would get."""
    draft_weight: float = 0.0
    """Weight of a GRPO term on the drafts under the bare prompt; 0 trains on refinements only, as the paper does."""
    num_iterations: int = 1
    """Updates on one rollout (mu)."""
    beta: float = 0.0
    """Weight of the KL penalty against the initial policy."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """How KL is estimated from a token drawn, with rho = reference / policy. k1: -log rho. k2: (log rho)^2 / 2. k3:
    rho - log rho - 1."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the KL penalty goes: into each token's loss, or, summed over a completion, off its reward."""
    epsilon: float = 0.2
    """Lower clip range of the ratio, and the upper one unless epsilon_high is given; 1 is no lower one."""
    epsilon_high: float | None = None
    """Upper clip range (DAPO's clip-higher)."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = "grpo"
    """grpo: token mean within a completion, then mean over completions. dr_grpo: sum over completions divided by their
    maximal length. dapo: mean over all tokens of the batch. gspo: grpo with one sequence-level ratio a completion.
    cispo: dapo whose clipped ratio is a constant weight of the log-probability, so no token is without gradient."""
    baseline: Literal["group", "leave_one_out"] = "group"
    """What a reward is compared with: the mean of its group, or of the others in its group (RLOO)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """By which standard deviation advantages are divided: that of the group, of all the step's rewards, or by none."""
    mask_truncated: bool = False
    """Leave completions that the length limit cut out of the loss; they still count in the baseline, as in TRL."""
    overlong_buffer: int = 0
    """Last tokens before max_completion_length over which up to 1 is taken off the reward (DAPO); 0 is off."""

    def __post_init__(self) -> None:
        """Reads True and False, which scale_rewards was once, as "group" and "none"."""
        object.__setattr__(self, "scale_rewards", today("algorithm.scale_rewards", self.scale_rewards))
