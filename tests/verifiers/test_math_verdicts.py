r"""What the math verifier says of an answer, and which ground truths it refuses at load."""

import subprocess
import sys

import pytest

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import ExactMatch, MathVerifier, Verifier

VERIFIER = MathVerifier()


def prompt(answer: str | None) -> Prompt:
    return Prompt(uid=0, domain="math", dataset="d", text="", ids=[], answer=answer, source="rows.jsonl row 7")


def verdict(answer: str, response: str):
    return VERIFIER.verify([prompt(answer)], [response])[0]


@pytest.mark.parametrize(
    ("gold", "response", "answer", "reason"),
    [
        ("30", r"\boxed{ 30.0 }", "30.0", ""),
        ("30", "30", None, r"no \boxed{} answer"),
        ("30", r"\boxed{ }", " ", r"no \boxed{} answer"),
        ("30", r"\boxed{31}", "31", "wrong: expected 30"),
        (r"\sqrt2", r"\boxed{\sqrt3}", r"\sqrt3", r"wrong: expected \sqrt2"),
        ("1" * 100, r"\boxed{31}", "31", "wrong: expected " + "1" * 80),
        ("30", r"\boxed{10+20}", "10+20", "left unevaluated: 10+20"),
        ("30", r"\boxed{9^{9^{9^9}}}", "9^{9^{9^9}}", "not compared: too many digits"),
        ("30", "\\boxed{" + "9" * 1500 + "}", "9" * 1500, "too long to be compared"),
    ],
)
def test_the_verdict_gives_answer_and_reason(gold, response, answer, reason):
    found = verdict(gold, response)
    assert (found.answer, found.reason, found.reward) == (answer, reason, float(not reason))


@pytest.mark.parametrize(
    ("gold", "answers"),
    [
        ("7", ["1/2", "0.5", r"\frac12", r"\dfrac{2}{4}", ".50", "x = 0.5"]),
        ("7", [r"\frac{1}{\sqrt 2}", r"\frac{\sqrt2}{2}", r"2^{-1/2}"]),
        ("7", ["1000", "1,000", r"1\,000"]),
        ("7", ["(1, 0.5)", r"(1,\frac12)", r"\left(1, 1/2\right)"]),
        ("7", ["1, 2", "2,1", r"2 \text{ and } 1"]),
        ("x", ["Monday", r"\text{monday}"]),
        (r"\sqrt5", ["x+1", "1 + x"]),
        (r"\frac12", ["0.5", r"\frac{2}{4}", "1/2", "50\\%"]),
    ],
)
def test_equal_answers_share_a_vote(gold, answers):
    votes = {verdict(gold, f"\\boxed{{{answer}}}").vote for answer in answers}
    assert len(votes) == 1
    assert votes != {None}


def test_different_answers_have_different_votes_and_the_right_one_votes_for_the_gold():
    answers = [
        "7",
        "8",
        "1/2",
        r"\sqrt2",
        r"\sqrt3",
        "(1,2)",
        "(2,1)",
        "[1,2]",
        "1,2",
        "x",
        r"\text{no}",
        "50\\%",
        "50",
    ]
    votes = [verdict("7", f"\\boxed{{{answer}}}").vote for answer in answers]
    assert len(set(votes)) == len(votes)
    assert votes[0] == verdict("7", r"\boxed{x = 7.0}").vote == "7"
    assert verdict("7", "none").vote is None


@pytest.mark.parametrize(
    "answer", [None, "", "  ", "!!", r"\frac{1}{", "2 3", r"\frac{1}{2", "(1,", "3 +", r"\boxed{}"]
)
def test_unusable_math_answer_is_refused_by_row(answer):
    with pytest.raises(InputError, match=r"^rows\.jsonl row 7: ") as error:
        VERIFIER.check(prompt(answer))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (r"\frac{sqrt{7} + 1}{2}", "sqrt"),
        (r"frac{1}{2}", "frac"),
        (r"2sqrt{3}", "sqrt"),
        (r"x + dfrac{1}{2}", "dfrac"),
        (r"2pi", "pi"),
        (r"\frac{pi}{2}", "pi"),
        (r"3 cdot 5", "cdot"),
        (r"(-infty, 3]", "infty"),
        (r"[1,2] cup [3,4]", "cup"),
        (r"2 times 3", "times"),
        (r"left(1, 2right)", "left"),
        (r"5 text{cm}", "text"),
        (r"binom{5}{2}", "binom"),
        (r"sqr{7}", "sqr"),
    ],
)
def test_a_command_without_its_backslash_is_refused_by_name(answer, name):
    with pytest.raises(InputError, match=f"rows.jsonl row 7: .* has `{name}` without its backslash; mend or drop"):
        VERIFIER.check(prompt(answer))


@pytest.mark.parametrize(
    "answer",
    ["30", "-0.5", r"\frac12", r"$\sqrt 2$", "(1, 2)", "left", "3 times", r"\text{pi day}", "Sunday", "(A)"]
    + [r"5 \text{ cups}", r"\left(1, 2\right)", r"\mathrm{cm}", r"\operatorname{lcm}(2,3)", r"\boxed{7}", "x_{10}"],
)
def test_usable_math_answers_pass_the_check(answer):
    VERIFIER.check(prompt(answer))
    assert verdict(answer, f"\\boxed{{{answer.strip('$')}}}").reward == 1.0


def test_many_golds_are_checked_at_once_and_the_first_broken_row_is_named():
    golds = ["1", r"\sqrt2", "3 +", "4 +"]
    prompts = [
        Prompt(uid=i, domain="m", dataset="d", text="", ids=[], answer=gold, source=f"f.jsonl row {i}")
        for i, gold in enumerate(golds)
    ]
    VERIFIER.check_all(prompts[:2])
    with pytest.raises(InputError, match=r"^f\.jsonl row 2: answer '3 \+' is not mathematics"):
        VERIFIER.check_all(prompts)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_limit_that_is_not_positive_is_refused(seconds):
    with pytest.raises(InputError, match=r"MathVerifier\.seconds"):
        MathVerifier(seconds=seconds)


def test_plain_numbers_start_no_worker_and_never_import_math_verify():
    code = (
        "import subprocess, sys; from gopd_lightning.verifiers import MathVerifier\n"
        "from gopd_lightning.records import Prompt\n"
        "subprocess.Popen = None\n"
        "p=Prompt(uid=0,domain='m',dataset='d',text='',ids=[],answer='3'); v=MathVerifier(); v.check(p)\n"
        "found = v.verify([p]*5, ['\\\\boxed{'+a+'}' for a in ('3', '4', '1+2', '1/2', 'Monday')])\n"
        "assert [one.reward for one in found] == [1.0, 0.0, 0.0, 0.0, 0.0], found\n"
        "assert 'math_verify' not in sys.modules and 'sympy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_exact_match_strips_and_may_ignore_case():
    prompts = [prompt("Yes")] * 3
    answers = [" Yes\n", "yes", "no"]
    assert [one.reward for one in ExactMatch().verify(prompts, answers)] == [1.0, 0.0, 0.0]
    assert [one.reward for one in ExactMatch(ignore_case=True).verify(prompts, answers)] == [1.0, 1.0, 0.0]


def test_exact_match_refuses_a_missing_answer():
    with pytest.raises(InputError, match=r"rows\.jsonl row 7"):
        ExactMatch().check(prompt(" "))


def test_verifiers_fit_the_protocol():
    assert isinstance(MathVerifier(), Verifier)
    assert isinstance(ExactMatch(), Verifier)
