"""Boxed answers: what is extracted, what is equal, what is refused."""

import subprocess
import sys
import threading

import pytest

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import ExactMatch, MathVerifier, Verifier, extract_boxed


def prompt(answer: str | None) -> Prompt:
    return Prompt(uid=0, domain="math", dataset="d", text="", ids=[], answer=answer, source="rows.jsonl row 7")


def reward(answer: str, response: str) -> float:
    return MathVerifier().verify([prompt(answer)], [response])[0]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{30}", "30"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\boxed{\text{see \boxed{5}}}", "5"),
        ("no box", None),
        (r"\boxed{1", None),
        ("", None),
    ],
)
def test_last_balanced_box_is_extracted(text, inside):
    assert extract_boxed(text) == inside


@pytest.mark.parametrize(
    ("answer", "response"),
    [
        ("30", r"6*5=30;\boxed{30}"),
        ("30", r"\boxed{ 30.0 }"),
        ("0.5", r"\boxed{\frac12}"),
        (r"\frac12", r"\boxed{0.5}"),
        (r"\frac{1}{2}", r"\boxed{\frac{2}{4}}"),
        (r"$\sqrt{2}$", r"\boxed{2^{1/2}}"),
        (r"\boxed{7}", r"\boxed{7}"),
        ("1000", r"\boxed{1,000}"),
        ("-3", r"\boxed{-3}"),
    ],
)
def test_equal_answers_earn_one(answer, response):
    assert reward(answer, response) == 1.0


@pytest.mark.parametrize(
    ("answer", "response"),
    [
        ("30", r"\boxed{31}"),
        ("30", "30"),
        ("30", r"\boxed{30} no, \boxed{20}"),
        ("30", r"\boxed{10+20}"),
        ("30", r"\boxed{6*5}"),
        ("30", r"\boxed{50-20}"),
        ("30", r"\boxed{}"),
        ("30", r"\boxed{\frac{}{}{}"),
        (r"\frac12", r"\boxed{\frac13}"),
        ("30", "\\boxed{" + "9" * 5000 + "}"),
        (r"\pi", "\\boxed{\ud800}"),
    ],
)
def test_wrong_or_broken_answers_earn_nothing(answer, response):
    assert reward(answer, response) == 0.0


def test_symbolic_answers_are_graded_off_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(reward(r"\frac34", r"\boxed{\frac{6}{8}}")))
    thread.start()
    thread.join()
    assert found == [1.0]


def test_plain_numbers_never_import_math_verify():
    code = (
        "import sys; from gopd_lightning.verifiers import MathVerifier\n"
        "from gopd_lightning.records import Prompt\n"
        "p=Prompt(uid=0,domain='m',dataset='d',text='',ids=[],answer='3'); v=MathVerifier(); v.check(p)\n"
        "assert v.verify([p,p],['\\\\boxed{3}','\\\\boxed{4}'])==[1.0,0.0]\n"
        "assert 'math_verify' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("answer", [None, "", "  ", "!!"])
def test_unusable_math_answer_is_refused_by_row(answer):
    with pytest.raises(InputError, match=r"rows\.jsonl row 7") as error:
        MathVerifier().check(prompt(answer))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("answer", ["30", "-0.5", r"\frac12", r"$\sqrt 2$", "(1, 2)"])
def test_usable_math_answers_pass_the_check(answer):
    MathVerifier().check(prompt(answer))


def test_exact_match_strips_and_may_ignore_case():
    prompts = [prompt("Yes")] * 3
    assert ExactMatch().verify(prompts, [" Yes\n", "yes", "no"]) == [1.0, 0.0, 0.0]
    assert ExactMatch(ignore_case=True).verify(prompts, [" Yes\n", "yes", "no"]) == [1.0, 1.0, 0.0]


def test_exact_match_refuses_a_missing_answer():
    with pytest.raises(InputError, match=r"rows\.jsonl row 7"):
        ExactMatch().check(prompt(" "))


def test_verifiers_fit_the_protocol():
    assert isinstance(MathVerifier(), Verifier)
    assert isinstance(ExactMatch(), Verifier)
