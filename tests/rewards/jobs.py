"""Functions that tests run in grader processes, and rewards that tests load by path."""

import os
import signal
import sys

NOT_A_FUNCTION = 5


def loaded(name: str) -> bool:
    return name in sys.modules


def main_module() -> str:
    spec = sys.modules["__main__"].__spec__
    return "" if spec is None else spec.name


def ignores_interrupts() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def above_the_guard() -> int:
    """The process id of a grader's grandparent."""
    with open(f"/proc/{os.getppid()}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def uses_memory(size: int) -> int:
    return len("x" * size)


def evaluates(text: str) -> int:
    import sympy

    return int(sympy.sympify(text))


def length(prompts, completions, **columns):
    return [float(len(text)) for text in completions]


def has_hint(completions, hint, prompts=None):
    return [None if value is None else value in text for value, text in zip(hint, completions, strict=True)]


def raises(prompts, completions, **columns):
    raise KeyError("lost")


def too_short(prompts, completions, **columns):
    return [1.0]


def not_a_number(prompts, completions, **columns):
    return [1.0, float("nan")]


def words(prompts, completions, **columns):
    return ["good", "bad"]


def nothing(prompts, completions, **columns):
    return None


def only_even(prompts, completions, **columns):
    return [1.0 if i % 2 == 0 else None for i in range(len(completions))]


async def later(prompts, completions, **columns):
    return [1.0 for _ in completions]
