"""Coverage-guided fuzzing of what reads and compares answers; not part of the suite.

    python -m pip install "atheris>=3.0"
    PYTHONPATH=. python tests/hostile/fuzz.py -max_total_time=300 -timeout=10 -rss_limit_mb=4096

It stops at the first exception, at an answer paid that equals none of the gold answers, at whatever Python is asked to
open, import, compile, run or send, and at an input that takes 10 s. Inputs are pieces of the corpus and raw text.
"""

import sys

import atheris

with atheris.instrument_imports(include=["igrpo_jax.rewards"]):
    from igrpo_jax.rewards import compare, extract_answer
    from tests.hostile import audited

from tests.hostile.corpus import FAMILIES

PIECES = [text for name, family in FAMILIES.items() if name not in ("megabytes", "nesting") for text in family]
PIECES += [
    "{",
    "}",
    "\\",
    "^",
    "_",
    "(",
    ")",
    "[",
    "]",
    "!",
    "=",
    ",",
    " ",
    "&",
    r"\frac",
    r"\sqrt",
    r"\text",
    r"\boxed{",
]
UNPAID = "8191"
"""A gold answer that fuzzed text would have to spell out; it is skipped where it does."""


def one(data: bytes) -> None:
    """Grades one text made of the fuzzer's bytes."""
    provider = atheris.FuzzedDataProvider(data)
    parts = []
    while provider.remaining_bytes() and len(parts) < 40:
        if provider.ConsumeBool():
            parts.append(PIECES[provider.ConsumeIntInRange(0, len(PIECES) - 1)])
        else:
            parts.append(provider.ConsumeUnicode(8))
    text = "".join(parts)
    if "8191" in text or "7919" in text:
        return
    result = audited.watched([(rf"\boxed{{{text}}}", UNPAID), (text, UNPAID)], [(text, UNPAID)])
    if result["events"]:
        raise AssertionError(f"{text!r} led to {result['events']}")
    if result["paid"]:
        raise AssertionError(f"{text!r} was paid: {result['paid']}")
    read = extract_answer(text)
    if read is not None and len(read) < 200 and compare(read, read).reason in ("number", "symbolic", "unequal"):
        raise AssertionError(f"{read!r} is not what is written the same way")


def main() -> None:
    """Imports what grading needs, watches, and fuzzes."""
    audited.prepare()
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
