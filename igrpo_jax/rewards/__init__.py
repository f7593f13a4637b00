"""Rewards: reads answers out of completions, grades them in killable processes, and says why. Imports no jax."""

from igrpo_jax.rewards.compare import compare, gold_is_parsable
from igrpo_jax.rewards.extract import extract_answer
from igrpo_jax.rewards.load import load_rewards
from igrpo_jax.rewards.score import Rewards, Scores
from igrpo_jax.rewards.verdict import REASONS, Verdict
from igrpo_jax.rewards.workers.pool import GraderPool

__all__ = [
    "REASONS",
    "GraderPool",
    "Rewards",
    "Scores",
    "Verdict",
    "compare",
    "extract_answer",
    "gold_is_parsable",
    "load_rewards",
]
