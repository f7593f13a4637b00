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
    ("1,234,567.89 dollars", "1,234,567.89 dollars"),
    ("minus: -5", "-5"),
    ("7-5", "5"),
    ("\u22127", "-7"),
    ("-$5", "-5"),
    ("a = 3/4.", "3/4"),
    (r"x = -\frac{3}{4}$", r"-\frac{3}{4}"),
    ("about 50%", "50%"),
    (r"50\%", r"50\%"),
    ("1.5e-3 m", r"1.5e-3 \text{m}"),
    ("probability .5", ".5"),
    ("**12**", "12"),
    ("put it in \\boxed form: 9", "9"),
    (r"cut off: \boxed{12", "12"),
    ("x2 and H2O", None),
    ("no idea", None),
    ("", None),
]
EXPRESSIONS = [
    (r"the golden ratio is $\frac{1+\sqrt{5}}{2}$.", r"\frac{1+\sqrt{5}}{2}"),
    (r"$-[0,1)$", "-[0,1)"),
    ("it is at (4, 6).", "(4, 6)"),
    ("so x lies in [0, 1)", "[0, 1)"),
    (r"so it is 2\sqrt{5}.", r"2\sqrt{5}"),
    ("sqrt(5)", "sqrt(5)"),
    ("we get x^2+1", "x^2+1"),
    ("the answer is 2x", "2x"),
    ("5!", "5!"),
    ("the time is 3:30", "3:30"),
    (r"\[ x+3=5 \]", "x+3=5"),
    (r"\begin{align*} a &= 3 \\ &= 5 \end{align*} so $x=5$", "x=5"),
    ("the ratio is 1 000", "1 000"),
    ("il coûte 2,74", "2,74"),
    ("$x$ is 5, for every $n$", "5"),
    ("The answer is $E$", "E"),
]
PLAIN = [
    ("12 + 30 = 42", "42"),
    ("x = 5", "5"),
    ("f(3) = 7", "7"),
    ("(12)", "12"),
    ("10 (ten)", "10"),
    ("we multiply 3 * 5", "5"),
    (r"we multiply 3 \times 5", "5"),
    (r"\foo{3} 5x^", "5"),
    ("3 + 4", "4"),
    ("2.5 (or 5/2)", "5/2"),
    ("42 + ", "42"),
    ("12m", r"12 \text{m}"),
    ("3 x 4 = 12", "12"),
    ("- 12", "12"),
    ("Step 1: 12", "12"),
    ("1, 2, 3", "3"),
    ("costs $5 and $10", "10"),
    ("$5, $10", "10"),
    ("he has $10,200 + $255 = $10,455.", "10,455"),
    ("16 - 3 = <<16-3=13>>13 eggs", "13"),
]
BESIDE = [
    (r"\boxed{1} and \boxed{-2}", "1, -2"),
    (r"$\boxed{(2, 2)} \quad \text{and} \quad \boxed{(6, 2)}$", "(2, 2), (6, 2)"),
    (r"\(x=\boxed{1}\) and \(y=\boxed{2}\)", "1, 2"),
    (r"\boxed{5}. \boxed{5}", "5"),
    (r"\boxed{2+3} = \boxed{5}", "5"),
    (r"\boxed{4}, so no, \boxed{5}", "5"),
    (r"\boxed{255} The final answer is $10,455$. I hope it is correct, 2 times.", "10,455"),
    (r"The final answer is 7. I used 3 steps.", "7"),
    (r"the final answer is \boxed{7}, in 3 steps", "7"),
    (r"so \\boxed{840}", "840"),
]
UNITS = [
    ("The length is 5 mm.", "5 mm"),
    ("It weighs 5 g.", r"5 \text{g}"),
    ("it is 2\\sqrt{5} cm.", r"2\sqrt{5} cm"),
    (r"it is $5$ mm.", "5 mm"),
    ("it is 5 \\text{ mm}", r"5 \text{ mm}"),
    ("at 5 km/h", "5 km/h"),
    ("at 5 miles per hour.", "5 miles per hour"),
    ("it is 5 square feet in all", "5 square feet"),
    ("it is 5 cm^2.", "5 cm^2"),
    ("it falls with 9.8 m/s^2 there", "9.8 m/s^2"),
    ("5 million people live there", "5 million"),
    ("it costs 5M", r"5 \text{M}"),
    ("50 cents", "50 cents"),
    ("it costs \u20ac5", "\u20ac5"),
    ("it is 20 \u00b0C", "20 \u00b0C"),
    ("12.5 percent of it", "12.5 percent"),
    ("there are 5 in all", "5"),
    ("there are 5 apples", "5"),
    ("he is 5 meterologist's", "5"),
    ("5 hours and 3 minutes", "3 minutes"),
    ("in 3 days, 2 x", "2"),
]
THOUGHTS = [
    (r"<think>\boxed{1}</think> The answer is 2.", "2"),
    (r"<think>\boxed{1}</think>", None),
    (r"maybe 1</think>\boxed{2}</think>\boxed{3}", "3"),
    (r"<think>\boxed{1} cut", None),
    (r"It is \boxed{1}. <think>or \boxed{2}", "1"),
]


@pytest.mark.parametrize(("text", "answer"), BOXES + TAGS + NUMBERS + EXPRESSIONS + PLAIN + UNITS + BESIDE + THOUGHTS)
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
        ("$" * 100000, None),
        ("$1" * 30000, "1"),
        (r"\(" * 50000 + "1", "1"),
        ("final answer is " * 10000, None),
        ("(" * 50000 + "1, 2" + ")" * 50000, "2"),
        (r"\boxed{1}, " * 10000, "1"),
        ("1 + " * 30000, "1"),
        ("\uff11" * 100000, "1" * 100000),
    ],
    ids=lambda value: str(value)[:12],
)
def test_hostile_text_takes_linear_time(text, answer):
    """Anything quadratic would run for minutes here."""
    assert extract_answer(text) == answer
