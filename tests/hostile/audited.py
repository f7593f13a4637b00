"""Grading under an audit hook, in a grader process: what Python is asked to open, import, compile, run or send."""

import sys
import time

from igrpo_jax.rewards import compare, extract_answer
from igrpo_jax.rewards.compare import warm_up
from tests.hostile.corpus import FAMILIES, GOLDS, GUESSES

HARMLESS = ("object.__", "sys._getframe", "builtins.id", "gc.", "time.sleep", "sys.setswitchinterval", "cpython.run")
_ORDINARY = (
    "5", r"\frac{1}{2}", r"\sqrt{2}+1", "x^2+1", "(1, 2)", "[0, 1)", "x<3", "x=5",
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
    r"\binom{5}{2}", r"\sin 1", r"\sum_{k=1}^5 k", r"\lfloor 2.5 \rfloor", "5!", "204_5", r"\gcd(4,6)",
    r"5 \text{ cm}", r"\pm 5",
    r"\max(1,2)", r"\log 3", "|x|", r"\{1,2\}", r"\overline{AB}", "12:30", r"50\%", r"2x+y=3",
    r"\det\begin{pmatrix}1\end{pmatrix}",
)  # fmt: skip

_seen: list[str] = []
_watching = False


def _hook(event: str, args: tuple) -> None:
    if _watching and not event.startswith(HARMLESS):
        _seen.append(f"{event} {args!r}"[:200])


def prepare() -> None:
    """Imports what grading needs, then watches."""
    warm_up()
    for answer in _ORDINARY:
        for gold in (*_ORDINARY, *GOLDS):
            compare(answer, gold)
    sys.addaudithook(_hook)


def judge(family: str, index: int) -> dict:
    """Grades one text of the corpus, bare and marked as the answer, against all gold answers."""
    text = FAMILIES[family][index]
    forms = [text]
    if len(text) < 100_000:
        forms += [rf"So it is \boxed{{{text}}}.", f"<answer>{text}</answer>", f"The final answer is {text}"]
    return watched([(form, gold) for form in forms for gold in GOLDS], [(text, gold) for gold in GOLDS])


def judge_guess(index: int) -> dict:
    """Grades one completion that names each gold answer without giving it."""
    return watched([(GUESSES[index].replace("GOLD", gold), gold) for gold in GOLDS], [])


def judge_text(text: str) -> dict:
    """Grades any text against all gold answers."""
    return watched([(rf"\boxed{{{text}}}", gold) for gold in GOLDS] + [(text, gold) for gold in GOLDS], [])


def attempt(what: str) -> list[str]:
    """What the watch sees when something is done."""
    return watched([], [], lambda: exec(what))["events"]


def watched(completions: list[tuple[str, str]], answers: list[tuple[str, str]], action=lambda: None) -> dict:
    """Which were paid, what the hook saw, and how long it took, in seconds of the processor."""
    global _watching
    _seen.clear()
    paid, started = [], time.process_time()
    read = {text: None for text, _ in completions}
    _watching = True
    try:
        action()
        for text in read:
            read[text] = extract_answer(text)
        for answer, gold in {(read[text], gold) for text, gold in completions if read[text] is not None} | set(answers):
            if compare(answer, gold):
                paid.append([answer[:100], gold])
            if len(answer) < 5000:
                compare(gold, answer)
    finally:
        _watching = False
    return {"paid": paid, "events": list(dict.fromkeys(_seen))[:5], "seconds": time.process_time() - started}
