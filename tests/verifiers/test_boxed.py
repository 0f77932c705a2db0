r"""The math verifier: what is extracted, what is equal, what is refused, and what it says."""

import pytest

from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import MathVerifier, extract_boxed

VERIFIER = MathVerifier()


def prompt(answer: str | None) -> Prompt:
    return Prompt(uid=0, domain="math", dataset="d", text="", ids=[], answer=answer, source="rows.jsonl row 7")


def verdict(answer: str, response: str):
    return VERIFIER.verify([prompt(answer)], [response])[0]


def table(text: str) -> list[tuple[str, str]]:
    rows = [line.split(" ~ ") for line in text.strip().splitlines()]
    return [(gold.strip(), answer.strip()) for gold, answer in rows]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{30}", "30"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\boxed{\text{see \boxed{5}}}", "5"),
        (r"\boxed 5", "5"),
        (r"\boxed5.", "5"),
        (r"so \boxed -5 it is", "-5"),
        (r"\boxed\frac12.", r"\frac12"),
        (r"\boxed\dfrac{3}{4} of it", r"\dfrac{3}{4}"),
        (r"\boxed\sqrt{23} cm", r"\sqrt{23}"),
        (r"\boxed\pi", r"\pi"),
        (r"\boxed x", "x"),
        (r"\boxed {7}", "7"),
        (r"\fbox{8}", "8"),
        (r"\framebox{9}", "9"),
        (r"\boxed{1} \fbox{2}", "2"),
        (r"\boxed{3} or \boxed\frac{4", "3"),
        (r"\boxed{3} \boxed", "3"),
        (r"\boxedx{1}", None),
        (r"\boxed", None),
        ("no box", None),
        (r"\boxed{1", None),
        ("", None),
    ],
)
def test_last_closed_box_is_extracted(text, inside):
    assert extract_boxed(text) == inside


EQUAL = {
    "numbers": r"""
        30 ~ 30.0
        -3 ~ −3
        0.5 ~ .50
        0.5 ~ \frac12
        \frac12 ~ 0.5
        1/91 ~ \frac{1}{91}
        \frac{1}{2} ~ \dfrac{2}{4}
        \frac{1}{3} ~ 0.\overline{3}
        \frac32 ~ 1\frac{1}{2}
        1500 ~ 1.5 \times 10^{3}
        5 ~ 2+3=5
    """,
    "thousands": r"""
        1000 ~ 1,000
        1000000 ~ 1,000,000
        12345 ~ 12{,}345
        12345 ~ 12\,345
        1,234.5 ~ 1234.5
        \frac{1000}{7} ~ \frac{1,000}{7}
    """,
    "radicals and constants": r"""
        $\sqrt{2}$ ~ 2^{1/2}
        \frac{9\sqrt{23}}{23} ~ \frac{9}{\sqrt{23}}
        2\sqrt3 ~ \sqrt{12}
        \sqrt[3]{2} ~ 2^{\frac13}
        1.5\pi ~ \frac{3\pi}{2}
        2^{25} \cdot 26! ~ 26! \cdot 2^{25}
        120 ~ 5!
        10 ~ \binom{5}{2}
        3 ~ \log_2 8
        14+4\sqrt{37} ~ 2(7+2\sqrt{37})
        e^{i\pi} ~ -1
        2i ~ (1+i)^2
        2+3i ~ 3 i + 2
    """,
    "terms and equations": r"""
        x+1 ~ 1+x
        \frac{n(n+1)}{2} ~ \frac{n^2+n}{2}
        2x ~ 2x \sin^2 x + 2x \cos^2 x
        5 ~ x = 5
        x = 5 ~ 5
        x=5 ~ x = 2 + 3 = 5
        f(x)=2x ~ 2x
        y=2x+1 ~ 2x-y+1=0
        x=1, y=2 ~ y=2, x=1
        \begin{pmatrix}1\\2\end{pmatrix} ~ \begin{bmatrix}1\\2\end{bmatrix}
    """,
    "lists, sets, tuples": r"""
        1,2 ~ 2, 1
        1, 2 ~ 1 \text{ and } 2
        1, 2 ~ \{2, 1\}
        \{1,2\} ~ 2, 1
        \{1,2\} ~ \left\{ 2, \frac{2}{2}, 2 \right\}
        (1,2) ~ \left(1, 2\right)
        (1,2) ~ 1, 2
        (1,0.5,3) ~ (1,\frac12,3)
        (1,2),(3,4) ~ (3,4), (1,2)
        3, -3 ~ \pm 3
        1 \pm \sqrt 2 ~ 1-\sqrt{2}, 1+\sqrt{2}
        0, \pm 1 ~ -1, 0, 1
        \emptyset ~ \{\}
    """,
    "intervals": r"""
        [1,2) ~ \left[1, 2\right)
        [0.5,1] ~ x \in [\frac12, 1]
        [1,2] ~ 1 \le x \le 2
        x > 3 ~ (3, \infty)
        (-\infty, 3] \cup (5, \infty) ~ (5,\infty)\cup(-\infty,3]
        \mathbb{R}\setminus\{0\} ~ (-\infty,0)\cup(0,\infty)
    """,
    "units and percent": r"""
        5 ~ 5 \text{ cm}
        5 \text{ cm} ~ 5
        5 \text{ cm} ~ 5 \mathrm{centimeters}
        12 ~ 12 \text{ cm}^2
        5 ~ 5cm
        5 ~ 5 m
        12 ~ 12 apples
        5 ~ \$5
        90 ~ 90^\circ
        90^\circ ~ 90 \text{ degrees}
        101_2 ~ 101
        50\% ~ 50
        50\% ~ 0.5
        50 ~ 50\%
        0.5 ~ 50 percent
    """,
    "text": r"""
        \text{Monday} ~ monday
        A ~ (A)
        (A) ~ \text{A}
        B ~ \textbf{(B)}\ 5
        yes ~ \text{Yes}
        \text{no solution} ~ no solution.
        12:30 ~ 12:30
        5 ~ \text{The answer is } 5
        5 ~ The answer is $5$.
    """,
}
UNEQUAL = {
    "numbers": r"""
        30 ~ 31
        0.333333 ~ \frac13
        \frac13 ~ 0.3333333333
        \pi ~ 3.14159265358979
        \sqrt2 ~ 1.41421356
        10^{-20} ~ 10^{-21}
        10^{-20}\sqrt2 ~ 10^{-21}\sqrt2
        2^{25} \cdot 26! ~ 2^{25} \cdot 26! + 1
        5 ~ 2(3)
        5 ~ 2 3
        5 ~ 2+3=6
        1,000 ~ 1, 0
    """,
    "terms and equations": r"""
        R^2-r^2 ~ 0
        10^{-20}x ~ 10^{-21}x
        3t ~ 3
        \frac{1}{2} h ~ \frac12
        2(a+b)h ~ 2(a+b)
        x+1 ~ y+1
        x=1 ~ y=1
        2x+y=1 ~ 1
        \frac{1}{0} ~ \frac{2}{0}
    """,
    "lists, sets, tuples": r"""
        1,2 ~ 1,3
        1,2 ~ 1
        1,2 ~ 1,1,2
        (1,2) ~ (2,1)
        (2,1) ~ (5,3)
        (1,2) ~ 2, 1
        (1,2) ~ \{1,2\}
        \{1,2\} ~ (1,2)
        (1, 234) ~ 1234
        3 ~ \pm 3
    """,
    "intervals": r"""
        (1,2) ~ [1,2]
        [1,2) ~ (1,2]
        [1,2] ~ 1, 2
        x>3 ~ x \ge 3
        [1,2] ~ 1 < x \le 2
    """,
    "units and percent": r"""
        5 \text{ cm} ~ 5 \text{ km}
        5 \text{ cm} ~ 5 \text{ cm}^2
        50\% ~ 0.5\%
        0.5 ~ 0.5\%
        101_2 ~ 101_3
    """,
    "text": r"""
        A ~ B
        (A) ~ \text{(C) } 5
        yes ~ no
        \text{even} ~ \text{odd}
        listen ~ silent
        12:30 ~ 24:60
        30 ~ thirty
    """,
    "left unevaluated": r"""
        30 ~ 10+20
        30 ~ 6*5
        30 ~ 50-20
        30 ~ x = 10 + 20
    """,
}


def rows(tables: dict[str, str]) -> list[tuple[str, str]]:
    return [pair for text in tables.values() for pair in table(text)]


@pytest.mark.parametrize(("gold", "answer"), rows(EQUAL))
def test_equal_answers_earn_one(gold, answer):
    assert verdict(gold, f"so \\boxed{{{answer}}} it is").reward == 1.0


@pytest.mark.parametrize(("gold", "answer"), rows(UNEQUAL))
def test_unequal_answers_earn_nothing(gold, answer):
    assert verdict(gold, f"so \\boxed{{{answer}}} it is").reward == 0.0


@pytest.mark.parametrize("gold", sorted({gold for gold, _ in rows(EQUAL)}))
def test_a_gold_that_can_be_graded_passes_the_check_and_equals_itself(gold):
    VERIFIER.check(prompt(gold))
    assert verdict(gold, f"\\boxed{{ {gold.strip('$')} .}}").reward == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "30",
        r"\boxed{30} no, \boxed{20}",
        r"\boxed{}",
        r"\boxed{\frac{}{}{}",
        "\\boxed{" + "9" * 5000 + "}",
        "\\boxed{\ud800}",
    ],
)
def test_wrong_or_broken_answers_earn_nothing(response):
    assert verdict("30", response).reward == verdict(r"\pi", response).reward == 0.0
