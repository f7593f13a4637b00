r"""When two answers are the same."""

import math_verify
import pytest

from igrpo_jax.rewards import compare, gold_is_parsable
from igrpo_jax.rewards.compare import compare_symbolic, compare_text
from igrpo_jax.rewards.number import read_number

EQUAL = [
    ("5", "5", "exact"),
    ("$5$", "5", "exact"),
    (r"\left( 1, 2 \right)", "(1,2)", "exact"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}", "exact"),
    ("5.", "5", "exact"),
    (r"\text{Tuesday}", "tuesday", "exact"),
    (r"\text{(C)}", "C", "exact"),
    (r"90^\circ", "90", "exact"),
    ("90\u00b0", r"90^{\circ}", "exact"),
    (r"5\text{ cm}", "5", "exact"),
    ("5 cm", r"5\text{ centimeters}", "exact"),
    (r"\$5", "5 dollars", "exact"),
    ("x = 5", "5", "exact"),
    ("5", "3 + 2 = 5\n#### 5", "exact"),
    ("5", r"\boxed{5}", "exact"),
    (r"\frac{1}{2}", "0.5", "number"),
    ("1/2", r"\frac12", "number"),
    ("2 1/2", "2.5", "number"),
    (r"2\frac{1}{2}", r"\frac{5}{2}", "number"),
    ("1,234", "1234", "number"),
    ("1{,}234.0", "1234", "number"),
    ("1e3", "1000", "number"),
    ("-0", "0", "number"),
    ("0.333333", r"\frac{1}{3}", "number"),
    (r"50\%", "0.5", "number"),
    (r"50\%", "50", "number"),
    ("50", r"50\%", "number"),
    ("0.5", r"50\%", "number"),
    (r"2\sqrt{3}", r"\sqrt{12}", "symbolic"),
    ("sqrt(2)", r"\sqrt{2}", "symbolic"),
    ("(x-1)(x+1)", "x^2-1", "symbolic"),
    ("x**2 + 2*x", "x(x+2)", "symbolic"),
    (r"\{2,1\}", r"\{1,2\}", "symbolic"),
    ("3, 2, 1", "1,2,3", "symbolic"),
    ("5 or 6", "6, 5", "symbolic"),
    (r"\pm 2", "2,-2", "symbolic"),
    (r"[0,\infty)", r"x \ge 0", "symbolic"),
    (r"(3,\infty)\cup(-\infty,2)", r"(-\infty,2)\cup(3,\infty)", "symbolic"),
    (r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", "symbolic"),
    ("y = 3 + 2x", "y=2x+3", "symbolic"),
    (r"\log_2 8", "3", "symbolic"),
    (r"1.5 \times 10^3", "1500", "symbolic"),
    (r"\sum_{k=1}^{4} k", "10", "symbolic"),
    ("z = i + 1", "z = 1+i", "symbolic"),
]
DIFFERENT = [
    ("5", "6", "unequal"),
    ("-5", "5", "unequal"),
    ("0.333", r"\frac{1}{3}", "unequal"),
    ("1e-7", "2e-7", "unequal"),
    (r"12.5\%", "12.5", "unequal"),
    ("100000001", "100000000", "unequal"),
    ("1,2", "12", "unequal"),
    ("5/0", "5", "parse_failed"),
    ("tea", "eat", "unequal"),
    (r"5\text{ cm}", r"5\text{ mm}", "unequal"),
    ("5 cm^2", "5 cm", "unequal"),
    (r"5\text{ million}", "5", "unequal"),
    ("y = 5", "x = 5", "unequal"),
    ("3t", "3", "unequal"),
    ("(2,1)", "(1,2)", "unequal"),
    ("[0,1]", "(0,1)", "unequal"),
    ("x+1", "x-1", "unequal"),
    ("z = 2i", "z = i", "unequal"),
    ("i = 10", "x = 1", "unequal"),
    (r"x \ne 2", r"y \ne 2", "unequal"),
    ("2 3", "5", "parse_failed"),
    ("the cost is 5", "5", "parse_failed"),
    (r"\frac{1}{", "1", "parse_failed"),
    ("9" * 1001, "9", "parse_failed"),
    (".", "5", "parse_failed"),
    ("x", r"\frac{1}{", "bad_gold"),
    ("x", "", "bad_gold"),
]


@pytest.mark.parametrize(("answer", "gold", "reason"), EQUAL)
def test_equal(answer, gold, reason):
    verdict = compare(answer, gold)
    assert (float(verdict), verdict.reason, verdict.parsed) == (1.0, reason, answer)


@pytest.mark.parametrize(("answer", "gold", "reason"), DIFFERENT, ids=lambda value: value[:16])
def test_different(answer, gold, reason):
    verdict = compare(answer, gold)
    assert (float(verdict), verdict.reason) == (0.0, reason)


def test_numbers_and_words_are_compared_without_trees():
    for answer, gold, reason in EQUAL + DIFFERENT:
        if reason in ("exact", "number"):
            assert compare_text(answer, gold) is not None
    assert compare_text(r"\sqrt{4}", "2") is None


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "1E" + "9" * 900])
def test_huge_exponents_are_no_numbers(text):
    assert read_number(text) is None
    assert compare_text(text, "5") is None and not compare_symbolic(text, "5")


def test_longest_number_is_exact():
    assert compare("9" * 990 + "1", "9" * 990 + "1.0").reason == "number"
    assert compare("9" * 990 + "1", "9" * 990 + "2").reason == "unequal"


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{3}}"),
        ("x^2+2x+1", "(x+1)^2"),
        ("x^2+2x+2", "(x+1)^2"),
        ("1,2,3", "3,2,1"),
        ("1,2,4", "3,2,1"),
        ("(1,2)", "(2,1)"),
        ("(1,2]", "[1,2)"),
        (r"x \in [1,2]", "[1,2]"),
        ("(1,2)", "1<x<2"),
        ("x>2", "2<x"),
        ("x>2", "x<2"),
        ("2^{10}", "1024"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        (r"\frac{3}{4}\pi", r"\frac{3\pi}{4}"),
        (r"\pi", "3.14159"),
        (r"\sqrt[3]{8}", "2"),
        ("3+4i", "4i+3"),
        ("2x+y=3", "y=3-2x"),
        ("|x|", "x"),
        ("0.5", r"\frac{1}{2}"),
        ("0.33", r"\frac{1}{3}"),
        (r"30\%", "0.3"),
        ("3:5", r"\frac{3}{5}"),
        (r"3 \pm \sqrt{2}", r"3-\sqrt{2}, 3+\sqrt{2}"),
        (r"\infty", r"-\infty"),
        (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{pmatrix}1&0\\0&2\end{pmatrix}"),
    ],
)
def test_agrees_with_math_verify(answer, gold):
    config = [math_verify.LatexExtractionConfig()]
    right, left = (math_verify.parse(f"${text}$", config, parsing_timeout=0) for text in (gold, answer))
    assert bool(compare(answer, gold)) == math_verify.verify(right, left, timeout_seconds=None)


@pytest.mark.parametrize(
    ("gold", "parsable"),
    [
        ("5", True),
        ("1,234.5", True),
        ("so 2 + 3 = 5 #### 5", True),
        (r"\frac{\sqrt{3}}{2}", True),
        (r"(-\infty, 2) \cup [3, \infty)", True),
        ("Tuesday", True),
        (r"\text{no solution}", True),
        ("ABCD", True),
        ("$125$ miles", True),
        ("-1./3", True),
        ("np.arcsin(10/13)", True),
        (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", True),
        (r"4 \frac{4}{9} days", True),
        (r"-1 \pm i\sqrt{3}", True),
        (r"y = c_1 e^{-x} + c_2 x e^{-x}", True),
        (r"x(t) = c_1 \begin{pmatrix} 1 \\ 2 \end{pmatrix} e^{3t}", True),
        (r"f(x) = \begin{cases} x^2, & \text{if } x<0 \\ x, & x \ge 0 \end{cases}", True),
        (r"\frac{d^{2} v_{o}}{d t^{2}}+\frac{v_{o}}{L C}=\frac{v_{i}}{L C}", True),
        (r"\text{June 20}", True),
        ("A3_{16}", True),
        (204, True),
        (None, False),
        (float("nan"), False),
        ("", False),
        (r"\frac{1}{0}", False),
        ("  $ $ ", False),
        (r"\frac{1}{", False),
        ("Proof by induction on the number n = 5 of points.", False),
        ("9" * 2000, False),
    ],
)
def test_gold_is_parsable(gold, parsable):
    assert gold_is_parsable(gold) is parsable
    if parsable:
        assert compare(str(gold).split("####")[-1], str(gold)) == 1.0
