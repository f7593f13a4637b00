r"""Mathematics: what is the same and what is not, by kind. Pairs are gold answer and answer."""

import pytest

from igrpo_jax.rewards import compare


def matrix(*rows: str) -> str:
    return r"\begin{pmatrix} " + r" \\ ".join(rows) + r" \end{pmatrix}"


DIFFERENT = {
    "rows of matrices": [
        (matrix("2", "3"), matrix("3", "2")),
        (matrix("1 & 2", "3 & 4"), matrix("1 & 3", "2 & 4")),
        (matrix("1 & 2", "3 & 4"), matrix("1 & 2", "4 & 3")),
        (matrix("1 & 2"), matrix("1", "2")),
        (matrix("1", "2"), matrix("1", "2", "0")),
        (matrix("1", "2"), "(2,1)"),
        (matrix("1 & 2", "3 & 4"), "-2"),
        (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", "2"),
    ],
    "matrices times something": [
        (matrix("-2", "-3") + " e^{2t}", matrix("-2", "-4") + " e^{2t}"),
        (matrix("-2", "-3") + " e^{2t}", matrix("-2", "-3") + " e^{3t}"),
        (
            f"c_1 {matrix('1', '2')} e^{{2t}} + c_2 {matrix('1', '-1')} e^{{-t}}",
            f"c_1 {matrix('1', '3')} e^{{2t}} + c_2 {matrix('1', '-1')} e^{{-t}}",
        ),
        (
            f"c_1 {matrix('1', '2')} e^{{2t}} + c_2 {matrix('1', '-1')} e^{{-t}}",
            r"I = -\frac{200}{3} e^{-10t} \sin 30t",
        ),
        (f"t {matrix('1', '0')} + {matrix('0', '1')}", f"t {matrix('0', '1')} + {matrix('1', '0')}"),
    ],
    "small differences": [
        (r"2-\frac{1}{2^{99}}", r"2-\frac{1}{2^{98}}"),
        (r"\frac{1}{20!}", r"\frac{1}{21!}"),
        (r"\frac{1}{2023!}", r"\frac{1}{2024!}"),
        ("2^{-30}", "0"),
        ("e^{-100}", "0"),
        (r"6.02\times10^{-9}", "0"),
        (r"6.02\times10^{-9}", r"6.03\times10^{-9}"),
        ("1", "1-10^{-30}"),
        ("0", r"\sqrt{2}-1.41421356"),
        (r"\sqrt{2}+\frac{1}{2^{99}}", r"\sqrt{2}+\frac{1}{2^{98}}"),
        (r"\sqrt{10^{40}+1}", "10^{20}"),
        (r"\pi", r"\frac{22}{7}"),
    ],
    "spellings of other numbers": [
        ("204_5", "204_6"),
        ("204_5", "54"),
        ("3:30", "4:40"),
        ("3:30 pm", "3:30 am"),
        ("500", "0,500"),
        ("1000", "1.000"),
        ("12", "1,2"),
        ("5", r"5\text{ millions}"),
        ("5", "5 dozen"),
        ("5", r"5\text{ dozens}"),
        ("5", r"5\text{ squared}"),
        ("5", "5 thousand"),
        ("5", r"5 \pmod 7"),
        ("5", r"5\text{ tens}"),
        ("5", r"5\text{ out of ten}"),
        (r"0.\overline{36}", "0.36"),
        (r"2\frac{1}{2}", "1"),
        ("6", "3!!"),
        ("120", "5"),
    ],
    "names and equations": [
        ("a=4,b=7", "7,4"),
        ("x=1,y=2", "x=2,y=1"),
        ("4,7", "a=7,b=4"),
        ("x^2+1=0", "x^2+2=0"),
        ("0", "x^2-12=0"),
        ("5", "x+3=5"),
        ("25", "x^2=25"),
        ("3", "x>3"),
        ("3", r"x \in \{3, 4\}"),
        ("y=2x", "x=2y"),
        ("x^2+y^2=1", "x^2-y^2=1"),
        ("x(y+1)=0", "x(y+2)=0"),
        ("MR=SRMC", "R=SRMC"),
        ("EAST, WEST", "SEAT, WEST"),
        (r"\begin{vmatrix} x-1 & 2 \\ 3 & y \end{vmatrix}=0", r"\begin{vmatrix} x-2 & 2 \\ 3 & y \end{vmatrix}=0"),
        ("I(0) e^{-t}", "0"),
        (r"\frac{dx}{dt}=kx-a", r"\frac{x}{t}=kx-a"),
    ],
    "options": [
        ("A", "(A), (B), (C), (D)"),
        ("A", "(A) or (B)"),
        ("A", "(A)(B)"),
        ("A", "A: not this, B"),
        ("A", r"\text{(A)} or \text{(B)}"),
        ("A", "(A) 5 or (B) 6"),
        ("A", "(a) or A) or (b)"),
        ("A", "(B) A"),
        (r"\textbf{(A)}\ 5", "(A), (B)"),
        (r"\textbf{(A)}\ 5", "(A) 6"),
        ("5", "(A) 5, (B) 6"),
    ],
    "equations that are false": [
        ("5", "2+2=5"),
        ("5", "4.5=5"),
        ("5", r"\sqrt2=5"),
        ("5", r"x=\frac92=5"),
        ("5", r"6 \equiv 5"),
        ("3", r"\pi=3"),
        ("5", r"\infty=5"),
        ("5", r"\frac{1}{0}=5"),
        ("5", "3! = 5"),
        ("5", r"|{-6}| = 5"),
        ("3", r"\gcd(6,8) = 3"),
        ("5", r"\text{Area} = 2+2 = 5"),
        ("(1,2)", "(3,4) = (1,2)"),
        ("x=5", "6 = x = 5"),
        ("11", r"\sum_{k=1}^4 k = 11"),
        ("x+2", "y = x+1 = x+2"),
        ("5", r"5 \approx 6"),
        ("130", r"\angle A = 180^\circ - 40^\circ = 130^\circ"),
        ("4.0", "4.5=4.0"),
        ("3.2", r"x=\frac{22}{7}=3.2"),
    ],
    "subscripts that are no base": [
        ("A_1", "A"),
        ("A_{16}", "A"),
        ("5_{max}", "5"),
        ("5_1", "5"),
        ("5_3", "5"),
        ("5_{99}", "5"),
        ("3a_{16}", "3a"),
    ],
    "degrees": [
        (r"20^\circ C", r"20^\circ F"),
        (r"20^\circ\text{C}", r"20^\circ\text{F}"),
        ("20 \u00b0C", "20 degrees Fahrenheit"),
        ("20 \u2103", "20 \u2109"),
        (r"\sin 30^\circ", r"\sin 30"),
        (r"2\cos 40^\circ", r"2\cos 40"),
        (r"90^\circ", r"\frac{\pi}{2}"),
    ],
    "words that are no unit": [
        ("5", f"5{text}")
        for word in (
            "quintillion eleven twelfths sixteenths twentieth googol reciprocal theta sqrt infinity minimum tripled "
            "halved inverse root halves negative"
        ).split()
        for text in (f" {word}", rf"\text{{ {word}}}")
    ]
    + [("5", rf"5\text{{ {words}}}") for words in ("at most", "or more", "and a half", "thirty-seconds", "wrong", "x")],
    "units": [
        ("5 m/s", "5 km/h"),
        ("5 m/s", "5 m/s^2"),
        ("5 m/s", "5 s/m"),
        ("5 mile", "5 miles per hour"),
        ("\\$5", "5 dollars per hour"),
        ("5 m", r"5\mathrm{M}"),
        ("5", r"5\mathrm{M}"),
        ("5", "5/s"),
        ("\u20ac5", "\\$5"),
    ],
    "lists and words": [
        ("1,2", "1.2"),
        ("12,5", "12.5"),
        ("0,5", "0.5"),
        ("IV", "VI"),
        ("IV, IX", "VI, XI"),
        ("AB", "BA"),
        ("no", "on"),
        ("yes, no", "yes, on"),
        ("O", "o"),
        ("XY", "xy"),
    ],
    "equations with a factor more": [
        ("y=2x", "(x-1)(y-2x)=0"),
        ("y=2x", "x(y-2x)=0"),
        ("y=2x", "xy=2x^2"),
        ("y=2x", "(x-1)^2(y-2x)=0"),
        ("y=2x", "(x-3)(y-2x)(x+1)=0"),
        ("y=2x", r"\sin(x) (y-2x)=0"),
        ("y=2x", "(y-2x)^2=0"),
        ("x+y=1", "x(x+y)=x"),
        ("(x-1)(y-2x)=0", "y=2x"),
    ],
    "sets": [
        (r"\{-2\}", "-2"),
        (r"\{1,2\}", r"\{1,2,3\}"),
        (r"\emptyset", "0"),
        ("x>1", r"x\ge 1"),
        (r"(-\infty,1)\cup(2,\infty)", r"(-\infty,1)\cup(3,\infty)"),
        (r"\text{$x<1$ or $x>2$}", "x>2"),
        (r"\mathbb{R}\setminus\{1\}", r"\mathbb{R}\setminus\{2\}"),
        (r"\mathbb{R}", r"\mathbb{Z}"),
        ("(1,2),(3,4)", "(1,4),(3,2)"),
        ("(15,-29)", "[15,-29)"),
        ("5", "5 or 6"),
        (r"\pm 5", "5"),
    ],
}
SAME = {
    "options and words": [
        ("A", "A)"),
        ("A", "A. 5"),
        ("A", r"(A) \frac{1}{2}"),
        ("C", r"\mathbf{(C)}\ 5\text{ C}"),
        (r"\textbf{(D)}\ \text{none}", "D"),
        ("IV, IX", "IX, IV"),
        ("no", "No"),
        ("xy", "yx"),
    ],
    "equations that are true": [
        ("5", "2+3=5"),
        ("5", r"x=\sqrt{25}=5"),
        ("5", "5=x=5"),
        ("120", "5! = 120"),
        ("10", r"\sum_{k=1}^4 k = 10"),
        (r"25\pi", r"A = \pi r^2 = 25\pi"),
        ("x^2+2x+1", "f(x)=(x+1)^2=x^2+2x+1"),
        ("1.41", r"\sqrt2=1.41"),
        ("-1.41", r"x=-\sqrt2=-1.41"),
        (r"\pi", r"\pi \approx 3"),
        ("130", r"\angle A = 180^\circ - 50^\circ = 130^\circ"),
        ("3", "e=3"),
    ],
    "numerals": [
        ("204_5", r"204_{\text{five}}"),
        ("2A_{16}", "2a_{16}"),
        ("2a_{16}", "2A_{16}"),
        ("FF_{16}", "FF"),
        ("10", "20_5"),
    ],
    "degrees": [
        (r"\frac12", r"\cos 60^\circ"),
        (r"\frac12", r"\sin(30^\circ)"),
        (r"\frac14", r"\sin^2 30^\circ"),
        (r"\frac12", r"\sin 30\text{ degrees}"),
        (r"\tan 15^\circ", r"2-\sqrt3"),
        (r"150^\circ", r"180^\circ - 30^\circ"),
        (r"60^\circ, 120^\circ", "60, 120"),
        (r"20^\circ C", "20"),
        (r"20^\circ C", r"20^\circ"),
        (r"20^{\circ}\text{ C}", "20 degrees Celsius"),
    ],
    "units of several words": [
        ("5 m/s", r"5\text{ m/s}"),
        ("5 m/s", "5 meters per second"),
        ("5 m/s", "5"),
        ("5 m/s", r"5\,\frac{\text{m}}{\text{s}}"),
        ("5 km/h", "5 kilometers per hour"),
        ("60 mph", "60 miles/hour"),
        ("9.8 m/s^2", r"9.8\,\mathrm{m}\,\mathrm{s}^{-2}"),
        ("9.8 m/s^2", "9.8 meters per second squared"),
        ("5 g/cm^3", "5 grams per cubic centimeter"),
        ("\\$5/hour", "5 dollars per hour"),
        (r"5\text{ N}", "5 newtons"),
    ],
    "units of every kind": [
        ("5", f"5 {word}")
        for word in "stars roots squares cubes raisins factories rounds minutes min sec points floors".split()
    ],
    "points and vectors": [(r"\langle 1,2 \rangle", "(1,2)"), ("(1,2)", r"\langle 1,2 \rangle")],
    "series inside series": [
        ("15", r"\sum_{k=1}^3 (\sum_{k=1}^2 k + k)"),
        ("15", r"\sum_{k=1}^3 (k + \sum_{k=1}^2 k)"),
        (r"\sum_{j=1}^{n} (\sum_{k=1}^{n} k + j)", r"\sum_{k=1}^{n} (\sum_{k=1}^{n} k + k)"),
    ],
    "functions": [(r"\frac{\pi}{6}", r"\sin^{-1}(1/2)"), (r"\frac{\pi}{6}", r"\sin^{-1} \frac12")],
    "percent": [(r"50\%", r"50\text{ percent}"), (r"50\%", "50 percent"), (r"28\%", "28 percentage")],
    "lead-ins and options": [
        ("5", "The answer is 5"),
        ("5", "Answer: 5"),
        ("(A)", r"\textbf{(A)}\ 5"),
        (r"\textbf{(A)}\ 5", "A"),
        (r"\textbf{(A)}\ 5", "(A) 5"),
    ],
    "thousands": [("1000", r"1,\! 000"), ("1000", r"1\ 000"), ("1000", "1 000"), (r"11,\! 111,\! 100", "11111100")],
    "both signs": [
        (r"\frac{-1 \pm \sqrt{5}}{2}", r"\frac{-1+\sqrt{5}}{2}, \frac{-1-\sqrt{5}}{2}"),
        (r"\frac{-1+\sqrt{5}}{2}, \frac{-1-\sqrt{5}}{2}", r"\frac{-1 \pm \sqrt{5}}{2}"),
        (r"x = -1 \pm i\sqrt{3}", r"-1+i\sqrt{3}, -1-i\sqrt{3}"),
        (r"\{1\pm\sqrt{5},-2\}", r"\{-2,1+\sqrt5,1-\sqrt5\}"),
    ],
    "names in front": [
        (r"90^\circ", r"\angle ABC = 90^\circ"),
        ("12", "[ABC] = 12"),
        ("12", r"\text{Area} = 12"),
        (r"\frac{3}{5}", r"\cos A = \frac{3}{5}"),
        ("a=4,b=7", "4,7"),
        ("(3,2)", "(p,q)=(3,2)"),
        ("(1,2)", "x=1,y=2"),
        ("f(x)=x^2", "x^2"),
    ],
    "units": [
        ("125 miles", "$125$ miles"),
        ("$125$ miles", "125"),
        (r"4 \frac{4}{9} days", r"\frac{40}{9}"),
        ("5000000", r"5\text{ million}"),
        ("36", "3 dozen"),
        ("60", "60 miles per hour"),
        ("864 square inches", r"864 \mbox{ inches}^2"),
    ],
    "numbers": [
        (r"0.\overline{3}", "1/3"),
        ("-1./3", r"-\frac13"),
        ("np.arcsin(10/13)", r"\arcsin(10/13)"),
        (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{E_1+2E_2}{3}"),
        ("2^{100}", "4^{50}"),
        ("12", "\uff11\uff12"),
        ("12", "\u0661\u0662"),
        ("12", "1\u200b2"),
        ("1000.99", "1000,99"),
    ],
    "layout": [
        ("1 \\\\ 2", "1\\\\2"),
        ("(1,2)", r"\Bigl( 1,2 \Bigr)"),
        (r"\frac12", r"\boldsymbol{\frac{1}{2}}"),
        ("5", r"\textcolor{red}{5}"),
        (r"\frac{1}{2}", r"\\frac{1}{2}"),
    ],
    "sets": [
        (r"\{x \mid -2 \le x < 1\}", "[-2,1)"),
        ("[-2,1)", r"\{x \mid -2 \le x < 1\}"),
        ("x<3", r"(-\infty,3)"),
        (r"(-\infty,3)", "x<3"),
        ("-x<-2", "x>2"),
        (r"\mathbb{R}\setminus\{2\}", r"x \ne 2"),
        (r"(0,9) \cup (9,36)", r"(0,36)\setminus\{9\}"),
        (r"x<2 \text{ or } x>3", r"(-\infty,2)\cup(3,\infty)"),
        (r"1\le|z|\le\frac{3}{2}", r"z \in [-\frac{3}{2},-1] \cup [1,\frac{3}{2}]"),
        ("0<f(x)<1", "(0,1)"),
    ],
    "matrices": [
        (matrix("1/2", "1"), r"\frac12" + matrix("1", "2")),
        (matrix("2", "3") + " e^{t}", matrix("2e^t", "3e^t")),
        (matrix("1 & 2", "3 & 4"), r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]"),
        (matrix("6 & 8", "10 & 12"), matrix("1 & 2", "3 & 4") + " + " + matrix("5 & 6", "7 & 8")),
        (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", "-2"),
    ],
    "expressions": [
        (r"\sin 2x", r"2\sin x\cos x"),
        (r"\tan^2 y+1", r"\sec^2 y"),
        (r"\frac{1}{2a}(\exp{a*t} - \exp{-a*t})", r"\frac{\sinh(at)}{a}"),
        (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k"),
        (r"\sum_{k=1}^{10} k^2", "385"),
        (r"\lfloor 3.7 \rfloor", "3"),
        (r"P(1+r)^t", r"P \cdot (1+r)^{t}"),
        (r"\frac{d}{d+1}", r"1-\frac{1}{d+1}"),
        (r"x(x+1)", "x^2+x"),
    ],
    "equations": [
        ("2x+4y-3=0", r"y=-\frac{1}{2}x+\frac{3}{4}"),
        (r"x^2/4 + y^2/3 = 1", r"x^2/16 + y^2/12 = 1/4"),
        ("MR=SRMC", "SRMC=MR"),
        ("x=y=2", "2"),
        (r"\frac{x}{y}=2", "x=2y"),
        ("PV=nRT", r"P=\frac{nRT}{V}"),
        ("y=2x-5", r"\frac{y-1}{x-3}=2"),
        ("y(x-1)=1", r"y=\frac{1}{x-1}"),
        (r"y\sqrt{x}=1", r"y=\frac{1}{\sqrt{x}}"),
    ],
}


def flat(kinds: dict[str, list[tuple[str, str]]]) -> list:
    return [pytest.param(*pair, id=f"{kind} {i}") for kind, pairs in kinds.items() for i, pair in enumerate(pairs)]


@pytest.mark.parametrize(("gold", "answer"), flat(DIFFERENT))
def test_different(gold, answer):
    verdict = compare(answer, gold)
    assert not verdict and verdict.reason != "error"


@pytest.mark.parametrize(("gold", "answer"), flat(SAME))
def test_same(gold, answer):
    verdict = compare(answer, gold)
    assert verdict == 1.0, (verdict.reason, verdict.message)


@pytest.mark.parametrize(("gold", "answer"), flat(DIFFERENT) + flat(SAME))
def test_everything_is_itself(gold, answer):
    for text in (gold, answer):
        assert compare(rf"\left. {text}", text) == 1.0
