"""Rewards that misbehave, loaded by path in a process of their own."""

import os
import signal
import sys
import time

LOADED = [os.getpid()]


def process(completions, **columns):
    return [float(os.getpid()) for _ in completions]


def main_thread(completions, **columns):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(5)
    return [1.0 for _ in completions]


def without_jax(completions, **columns):
    return [float("jax" in sys.modules) for _ in completions]


def sees_the_batch(completions, answer, completion_ids=None, **columns):
    best = max(map(len, completions))
    return [float(len(text) == best) + len(ids) for text, ids in zip(completions, completion_ids, strict=True)]


def never_returns(completions, **columns):
    time.sleep(600)


def asleep_at_bad(completions, **columns):
    if "bad" in completions:
        time.sleep(600)
    return [1.0 for _ in completions]


def raises_at_bad(completions, **columns):
    return [{"good": 1.0}[text] for text in completions]


def exits_at_bad(completions, **columns):
    if "bad" in completions:
        os._exit(3)
    return [1.0 for _ in completions]


def system_exit(completions, **columns):
    sys.exit("enough")


def kills_itself(completions, **columns):
    os.kill(os.getpid(), signal.SIGKILL)


def hungry(completions, **columns):
    return [float(len("x" * 2**31)) for _ in completions]


def not_finite_at_bad(completions, **columns):
    return [float("inf") if text == "bad" else 1.0 for text in completions]


def too_large_at_bad(completions, **columns):
    return [1e39 if text == "bad" else 1.0 for text in completions]


def huge_integer_at_bad(completions, **columns):
    return [10**400 if text == "bad" else 1.0 for text in completions]


def no_number_at_bad(completions, **columns):
    return ["much" if text == "bad" else 1.0 for text in completions]


def large(completions, **columns):
    return [3e38 for _ in completions]


def too_few(completions, **columns):
    return [1.0]


def generator(completions, **columns):
    return (1.0 for _ in completions)


def prints(completions, **columns):
    print("said by a reward")
    return [1.0 for _ in completions]


def too_few_of_some(completions, **columns):
    if len(completions) > 2:
        raise RuntimeError("too many")
    return [1.0]


class Judge:
    def __call__(self, prompts, completions):
        return [None if text == "bad" else 0.5 for text in completions]


judge = Judge()


def with_alarms(completions, answer, **columns):
    """As recipes have it: math_verify's timeouts are alarms, which work in a main thread only, and errors are 0."""
    import math_verify

    def one(completion, gold):
        try:
            return float(math_verify.verify(math_verify.parse(gold), math_verify.parse(completion)))
        except Exception:
            return 0.0

    return [one(*pair) for pair in zip(completions, answer, strict=True)]
