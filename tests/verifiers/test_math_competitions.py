r"""Golds of the competition files, as the math verifier grades them: five spellings, and wrong answers."""

import json
import os
import re
from functools import cache
from pathlib import Path

import pytest

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import MathVerifier

FILES = ("aime24", "aime25", "hmmt25_feb", "hmmt25_nov")
BROKEN = ("hmmt25_nov", "20")
VERIFIER = MathVerifier()


@cache
def golds(name: str) -> list[Prompt]:
    folder = os.environ.get("GOPD_EVAL_DATA")
    if not folder:
        pytest.skip("GOPD_EVAL_DATA names no folder with the competition files")
    lines = Path(folder, f"{name}.jsonl").read_text().splitlines()
    return [prompt(name, number, json.loads(line)) for number, line in enumerate(lines, start=1)]


def prompt(name: str, number: int, row: dict) -> Prompt:
    source = f"{name}.jsonl row {number} (id {row['id']})"
    return Prompt(uid=number, domain="math", dataset=name, text="", ids=[], answer=str(row["answer"]), source=source)


def sound(name: str) -> list[Prompt]:
    return [one for one in golds(name) if f"(id {BROKEN[1]})" not in one.source or name != BROKEN[0]]


def typeset(gold: str) -> str:
    r"""The same formula with other commands and spaces."""
    text = re.sub(r"\\frac", r"\\dfrac ", gold)
    text = re.sub(r"(?<=[\d}])\s*([+-])\s*(?=[\d\\])", r" \1\\, ", text)
    return text if text != gold else rf"\displaystyle {gold}"


def unbraced(gold: str) -> str:
    """In a box without braces where the gold is one token, in another box where it is not."""
    one_token = re.fullmatch(r"-?\d+(?:[./]\d+)?|\\sqrt\{\d+\}|\\frac\{\d+\}\{\d+\}", gold)
    return rf"So it is \boxed {gold}." if one_token else rf"So it is \fbox{{ {gold} }}."


def rewritten(gold: str) -> str:
    """An equal answer of another form."""
    if "," in gold:
        return ", ".join(reversed(gold.split(",")))
    if re.fullmatch(r"-?\d+", gold):
        return rf"\frac{{{2 * int(gold)}}}{{2}}"
    if re.fullmatch(r"-?\d+\.\d+", gold):
        digits = len(gold.split(".")[1])
        return rf"\frac{{{gold.replace('.', '')}}}{{{10**digits}}}"
    quotient = re.fullmatch(r"(?:\\frac\{)?(\d+)(?:/|\}\{)(\d+)\}?", gold)
    if quotient:
        return f"{3 * int(quotient[1])}/{3 * int(quotient[2])}"
    return rf"\frac{{3 \left( {gold} \right)}}{{3}}"


def plus_one(gold: str) -> str:
    return str(int(gold) + 1) if gold.isdigit() else ", ".join(f"{part} + 1" for part in gold.split(", "))


SPELLINGS = {
    "as is": lambda gold: rf"First \boxed{{0}}, but in fact \boxed{{{gold}}}.",
    "typeset": lambda gold: rf"\boxed{{{typeset(gold)}}}",
    "in a sentence": lambda gold: rf"Hence \boxed{{\text{{the answer is }} ${gold}$.}} I hope so.",
    "another box": unbraced,
    "another form": lambda gold: (
        rf"\boxed{{x = {rewritten(gold)}}}" if "," not in gold else rf"\boxed{{{rewritten(gold)}}}"
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_gold_grades_itself_correct_in_five_spellings(name, spelling):
    prompts = sound(name)
    responses = [SPELLINGS[spelling](one.answer) for one in prompts]
    found = VERIFIER.verify(prompts, responses)
    assert [(one.answer, r) for one, r, v in zip(prompts, responses, found, strict=True) if v.reward != 1.0] == []
    assert {v.vote for v in found} == {one.answer for one in prompts}


@pytest.mark.parametrize("name", FILES)
def test_the_spellings_are_five_different_texts(name):
    for one in sound(name):
        assert len({make(one.answer) for make in SPELLINGS.values()}) == len(SPELLINGS)
        assert one.answer not in (typeset(one.answer), rewritten(one.answer))


@pytest.mark.parametrize("name", FILES)
def test_a_gold_plus_one_is_wrong(name):
    prompts = sound(name)
    found = VERIFIER.verify(prompts, [rf"\boxed{{{plus_one(one.answer)}}}" for one in prompts])
    assert [one.answer for one, v in zip(prompts, found, strict=True) if v.reward] == []


@pytest.mark.parametrize("name", FILES)
def test_the_gold_of_another_problem_is_wrong(name):
    prompts = sound(name)
    pairs = [(one, other.answer) for one in prompts for other in prompts[::3] if other.answer != one.answer]
    found = VERIFIER.verify([one for one, _ in pairs], [rf"\boxed{{{answer}}}" for _, answer in pairs])
    assert [(one.answer, other) for (one, other), v in zip(pairs, found, strict=True) if v.reward] == []


def test_the_broken_gold_is_reported_at_load_and_no_other():
    refused = []
    for one in [one for name in FILES for one in golds(name)]:
        try:
            VERIFIER.check(one)
        except InputError as error:
            refused.append(str(error))
    (message,) = refused
    assert message == (
        r"hmmt25_nov.jsonl row 20 (id 20): answer '\\frac{sqrt{7} + 1}{2}' has `sqrt` without its backslash; "
        "mend or drop the row"
    )
