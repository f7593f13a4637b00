"""How good a policy is on a set of problems: bare answers, and refined ones of as many sampled tokens."""

from igrpo_jax.evaluate.evaluate import Evaluation, drawing, evaluate, refine

__all__ = ["Evaluation", "drawing", "evaluate", "refine"]
