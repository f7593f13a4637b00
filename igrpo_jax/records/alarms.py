"""What is odd about the last steps, from their metrics alone: warnings by name, each given once."""

import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from igrpo_jax.learning.learner import NONFINITE

Metrics = Mapping[str, float]

WINDOW = 100
"""Steps that are remembered."""

KNOWN = 20
"""Steps from which a running range is known."""

FAR = 10.0
"""So many times the middle of the running range is far out of it."""

LONG = 20
"""Steps in a row that are many."""

NO_ENTROPY = 0.01
"""Nats a token below which a policy says the same thing always."""


def warnings(history: Sequence[Metrics]) -> dict[str, str]:
    """What is odd about the newest of these steps, by name.

    Args:
      history: metrics of the last steps, oldest first; a metric may be missing in some.

    >>> warnings([{"grad_norm": 1.0}] * 20 + [{"grad_norm": 11.0}])
    {'grad_norm': 'the gradient norm is 11, far above its usual 1; the learning rate may be too high'}
    """
    found = {
        "grad_norm": _far(history, "grad_norm", "the gradient norm", "the learning rate may be too high"),
        "logp_difference": _far(
            history, "sampling/logp_difference/mean", "the distance between the sampler's log-probabilities and the "
            "trainer's", "they may be two policies by now, see model.dtype",
        ),
        "entropy": _all(
            history, 1, lambda one: one.get("entropy", 1.0) < NO_ENTROPY,
            f"the entropy is below {NO_ENTROPY:g} nats a token: completions of a prompt are all alike, so that "
            "nothing is learned",
        ),
        "skipped": _all(
            history, LONG, lambda one: one.get("update/skipped", 0.0) > 0,
            f"no update in {LONG} steps: all completions of a prompt are worth the same; see problems and rewards",
        ),
        "endless": _all(
            history, LONG, lambda one: one.get("completions/clipped_ratio", 0.0) >= 1,
            f"no completion has ended by itself in {LONG} steps; see sampling.max_completion_length and stop_strings",
        ),
    }  # fmt: skip
    return {name: text for name, text in found.items() if text}


class Alarms:
    """Remembers the last steps, and which warnings have been given."""

    def __init__(self) -> None:
        self._history: deque[Metrics] = deque(maxlen=WINDOW)
        self._given: set[str] = set()

    def after(self, metrics: Metrics) -> list[str]:
        """The warnings that this step gives rise to and that no earlier one did."""
        self._history.append(dict(metrics))
        found = warnings(list(self._history))
        new = [f"{name}: {text}" for name, text in found.items() if name not in self._given]
        self._given |= found.keys()
        return new


def _far(history: Sequence[Metrics], name: str, words: str, hint: str) -> str:
    """A warning if the newest value is far above the middle of those before it."""
    values = [one[name] for one in history[:-1] if name in one and one[name] == one[name]]
    newest = history[-1].get(name) if history else None
    if newest is None or len(values) < KNOWN:
        return ""
    usual = statistics.median(values)
    return f"{words} is {newest:.3g}, far above its usual {usual:.3g}; {hint}" if newest > FAR * usual > 0 else ""


def _all(history: Sequence[Metrics], steps: int, odd: Callable[[Metrics], bool], text: str) -> str:
    """That warning if the last so many steps are all odd."""
    last = history[-steps:]
    return text if len(last) == steps and all(map(odd, last)) else ""


def in_a_row(before: int, metrics: Mapping[str, float]) -> int:
    """How many updates in a row were left out, after `before`; a step without an update says nothing of that.

    >>> in_a_row(2, {NONFINITE: 1.0}), in_a_row(2, {"update/skipped": 1.0}), in_a_row(2, {NONFINITE: 0.0})
    (3, 2, 0)
    """
    if NONFINITE not in metrics:
        return before
    return before + 1 if metrics[NONFINITE] else 0


def too_many(done: int, left_out: int, metrics: Mapping[str, float]) -> str:
    """Why a run ends whose updates are not finite."""
    names = ("loss", "grad_norm", "sampling/logp_difference/max", "learning_rate")
    seen = ", ".join(f"{name} {metrics[name]:.3g}" for name in names if name in metrics)
    return (
        f"the loss or the gradient of the last {left_out} steps up to {done} was infinite or NaN ({seen}), so they "
        "were left out; weights are as before them, and so is the last checkpoint: allow more with "
        "--train.max-skipped, or begin in another --workdir with a lower optim.learning_rate or --model.dtype float32"
    )
