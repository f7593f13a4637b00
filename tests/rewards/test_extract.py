"""What counts as the answer of a completion."""

import pytest

from igrpo_jax.rewards import extract_answer

BOXES = [
    (r"so \boxed{5}", "5"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\frac{\sqrt{3}}{2}} is it", r"\frac{\sqrt{3}}{2}"),
    (r"first \boxed{1}, no, \boxed{2}", "2"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\fbox{7}", "7"),
    (r"\boxed 5.", "5"),
    (r"\boxed7", "7"),
    (r"\boxed { 8 }", "8"),
    (r"a stray { brace \boxed{3}", "3"),
    (r"a stray } brace \boxed{3} }", "3"),
    (r"\boxed{4} and then \boxed{5", "4"),
    (r"\boxed{4} \boxed{}", "4"),
    (r"\boxed{\text{one } \boxed{2}}", "2"),
]
TAGS = [
    ("<answer>5</answer>", "5"),
    ("<answer> yes\nno </answer>", "yes\nno"),
    ("<answer>1</answer> or <answer>2</answer>", "2"),
    ("<answer>1</answer> or <answer>2", "1"),
    ("<answer>1</answer></answer><answer></answer>", "1"),
    (r"<answer>so \boxed{3} it is</answer>", "3"),
    (r"\boxed{1} <answer>2</answer>", "2"),
    (r"<answer>2</answer> \boxed{1}", "1"),
]
NUMBERS = [
    ("it is 3, then 12.", "12"),
    ("1,234,567.89 dollars", "1,234,567.89"),
    ("minus: -5", "-5"),
    ("7-5", "5"),
    ("\u22127", "-7"),
    ("-$5", "-5"),
    ("a = 3/4.", "3/4"),
    (r"x = -\frac{3}{4}$", r"-\frac{3}{4}"),
    ("about 50%", "50%"),
    (r"50\%", r"50\%"),
    ("1.5e-3 m", "1.5e-3"),
    ("probability .5", ".5"),
    ("**12**", "12"),
    ("put it in \\boxed form: 9", "9"),
    (r"cut off: \boxed{12", "12"),
    ("x2 and H2O", None),
    ("no idea", None),
    ("", None),
]
THOUGHTS = [
    (r"<think>\boxed{1}</think> The answer is 2.", "2"),
    (r"<think>\boxed{1}</think>", "1"),
    (r"maybe 1</think>\boxed{2}</think>\boxed{3}", "3"),
    (r"<think>\boxed{1} cut", "1"),
]


@pytest.mark.parametrize(("text", "answer"), BOXES + TAGS + NUMBERS + THOUGHTS)
def test_reads(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{" * 20000, None),
        ("\\boxed{" * 20000 + "5" + "}" * 20000, "5"),
        ("\\boxed{ {" * 10000, None),
        ("\\boxed" + " " * 100000, None),
        ("{" * 100000, None),
        ("}" * 100000, None),
        ("\\" * 100000, None),
        ("<answer>" * 12000, None),
        ("</answer>" * 12000, None),
        ("<answer></answer>" * 6000, None),
        ("</think>" * 12000, None),
        ("9" * 100000, "9" * 100000),
        ("x" + "9" * 100000, None),
        ("1/" + "9" * 100000 + ".5", "9" * 100000 + ".5"),
        ("1," * 50000, "1"),
        ("-" * 100000, None),
        ("\\frac{" + "1" * 100000, "1" * 100000),
    ],
    ids=lambda value: str(value)[:12],
)
def test_hostile_text_takes_linear_time(text, answer):
    """Anything quadratic would run for minutes here."""
    assert extract_answer(text) == answer
