"""No text that a model writes reaches Python's `eval`."""

import builtins
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sympy

from igrpo_jax.rewards import compare, extract_answer, gold_is_parsable
from igrpo_jax.rewards.equality import equal  # noqa: F401 - what mpmath does while it loads is no evaluation of answers
from igrpo_jax.rewards.reading import ReadError, read
from tests.rewards.test_compare import DIFFERENT, EQUAL

ROOT = Path(__file__).parents[2]
CALL = "__import__('os').system('touch PLACE')"
HOSTILE = [
    CALL,
    rf"\text{{{CALL}}}",
    rf"\operatorname{{{CALL}}}(x)",
    rf"x_{{{CALL}}}",
    rf"x + \text{{{CALL}}}",
    rf"\mathrm{{{CALL}}} = 5",
    r"\operatorname{eval}(2)",
    r"\operatorname{gcd}(exec(1),2)",
    r"\overline{exec(1)}",
    r"\variable{exec(1)}",
    r"\begin{pmatrix} exec(1) \end{pmatrix}",
    "().__class__.__bases__[0]",
    "lambda: 5",
    "f(2, 3)",
    "1E5",
    "0,555",
    r"12.5\%",
]


@pytest.fixture
def evaluated(monkeypatch):
    """What `eval` is called with; what `exec` is called with as text, which sympy does with code of its own."""
    calls = []

    def watch(name):
        real = getattr(builtins, name)

        def watched(source, *rest):
            if name == "eval" or isinstance(source, str):
                calls.append((name, str(source)))
            return real(source, *rest)

        monkeypatch.setattr(builtins, name, watched)

    watch("eval")
    watch("exec")
    return calls


@pytest.mark.parametrize("gold", ["5", "x+1"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_not_evaluated(text, gold, evaluated, tmp_path):
    text = text.replace("PLACE", str(tmp_path / "pwned"))
    for answer in (text, extract_answer(rf"\boxed{{{text}}}") or "", extract_answer(f"<answer>{text}</answer>") or ""):
        compare(answer, gold)
        compare(gold, answer)
    assert [call for call in evaluated if call[0] == "eval" or "__import__" in call[1] or "os" in call[1].split()] == []
    assert not Path(tmp_path / "pwned").exists()


def test_the_watch_sees_evaluation(evaluated):
    assert sympy.sympify("1+1") == 2
    assert [name for name, _ in evaluated].count("eval") == 1


def test_ordinary_answers_do_not_need_eval(evaluated):
    for answer, gold, _ in EQUAL + DIFFERENT:
        compare(answer, gold)
    assert [source for name, source in evaluated if name == "eval"] == []


def test_grading_needs_nothing_that_evaluates_text():
    code = (
        "import json, sys\n"
        "sys.modules |= dict.fromkeys(('sympy', 'math_verify', 'reasoning_gym'))\n"  # importing these raises
        "from igrpo_jax.rewards import compare\n"
        "print(json.dumps([compare(*pair).reason for pair in json.load(sys.stdin)]))"
    )
    pairs = json.dumps([pair[:2] for pair in EQUAL])
    done = subprocess.run([sys.executable, "-c", code], input=pairs, capture_output=True, text=True, cwd=ROOT)
    assert json.loads(done.stdout) == [reason for *_, reason in EQUAL], done.stderr


def test_only_mathematics_is_read():
    for text in ("x # y", "x @ y", '"x"', "x; import", "\u5b57", "x" * 1001):
        with pytest.raises(ReadError):
            read(text, words=())


POISON = [
    "9^{9^{9^9}}",
    "9^9^9^9",
    r"e^{e^{e^{e}}}",
    r"(\sqrt{2})^{10^{9}}",
    "99999999!",
    "((5!)!)!",
    "3" + "!" * 900,
    r"\binom{10^{12}}{5 \cdot 10^{11}}",
    r"\sum_{k=1}^{10^{9}} k^k",
    r"\prod_{k=1}^{1000} k!",
    r"\sum_{k=1}^{1000} \frac{1}{k^{1000}}",
    r"\sum_{k=1}^{900} \sum_{j=1}^{900} k^j",
    r"10^{100000}",
    "1e1000*" * 140 + "2",
    "(" * 400 + "1" + ")" * 400,
    r"\sqrt{" * 120 + "2" + "}" * 120,
    r"\frac" * 190 + "1",
    r"\sin " * 200 + "x",
    "f(" * 300 + "x" + ")" * 300,
    "2^" * 400 + "2",
    "+".join(r"\pi^{900}" for _ in range(90)),
    r"\lfloor 10^{9000}\pi \rfloor",
    r"\tan(10^{9999})",
    r"x^{x^{x^{x^{99}}}}",
    r"\begin{pmatrix}" + r"\\".join("&".join("9" * 9) for _ in range(9)) + r"\end{pmatrix}^{20}",
]


@pytest.mark.parametrize("gold", ["5", r"\sqrt{2}", "x+1"])
def test_what_no_computer_evaluates_is_told_from_its_form(gold):
    started = time.process_time()
    reasons = {compare(text, gold).reason for text in POISON}
    assert time.process_time() - started < 0.2 * len(POISON)
    assert reasons <= {"too_large", "parse_failed", "unequal"}


def test_what_is_too_large_is_a_gold_answer_for_what_is_written_the_same_way():
    assert gold_is_parsable("9^{9^{9^9}}")
    assert compare(r"9^{9^{9^{9}}}", "9^{9^{9^9}}") == 1.0
    assert compare("9^{9^{9^8}}", "9^{9^{9^9}}").reason == "too_large"
