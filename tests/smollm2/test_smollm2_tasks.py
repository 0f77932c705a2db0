"""Prompts for SmolLM2: right answers are right, others are not, and no prompt is in two splits."""

import json
import re
from itertools import islice
from random import Random

import pytest

from gopd_lightning.records import Prompt
from gopd_lightning.smollm2.__main__ import SPLITS, write_data
from gopd_lightning.smollm2.tasks import code_rows, math_rows
from gopd_lightning.verifiers import MathVerifier, ProgramVerifier

OPERATIONS = {"product": "{} * {}", "difference": "{} - {}", "larger": "max({}, {})", "smaller": "min({}, {})"}


def value(words):
    """The expression of a term: x, 3 times y, the square of x, 7."""
    return words.replace(" times ", " * ").replace("the square of x", "x ** 2").replace("the square of y", "y ** 2")


def program(question):
    """A reading of the description that shares nothing with the generator."""
    words = re.search(r"returns (.*)\.", question)[1]
    if named := re.fullmatch(r"the (product|difference|larger|smaller) of (.*) and (.*)", words):
        expression = OPERATIONS[named[1]].format(value(named[2]), value(named[3]))
    else:
        expression = value(words).replace(" plus ", " + ").replace(" minus ", " - ")
    return f"```python\ndef f(x, y):\n    return {expression}\n```"


def grade(verifier, rows, responses):
    prompts = [
        Prompt(uid=0, domain="", dataset="", text="", ids=[], answer=row["answer"], source="row") for row in rows
    ]
    for prompt in prompts:
        verifier.check(prompt)
    return [verdict.reward for verdict in verifier.verify(prompts, responses)]


@pytest.fixture(scope="module")
def programs():
    verifier = ProgramVerifier()
    yield verifier
    verifier.close()


def question(row):
    return row["prompt"][-1]["content"]


def test_a_program_that_does_what_is_said_earns_one_and_its_neighbour_mostly_nothing(programs):
    rows = list(islice(code_rows(Random(0)), 300))
    written = [program(question(row)) for row in rows]
    assert grade(programs, rows, written) == [1.0] * len(rows)
    assert sum(grade(programs, rows, written[1:] + written[:1])) < 0.02 * len(rows)


def test_the_answer_of_a_sum_is_its_value_and_never_below_zero():
    rows = list(islice(math_rows(Random(0)), 300))
    values = [eval(re.search(r"Calculate (.*)\. Write", question(row))[1]) for row in rows]
    assert grade(MathVerifier(), rows, [f"\\boxed{{{value}}}" for value in values]) == [1.0] * len(rows)
    assert min(values) >= 0
    assert grade(MathVerifier(), rows, [f"\\boxed{{{value + 1}}}" for value in values]) == [0.0] * len(rows)


def test_files_are_the_same_again_and_no_prompt_is_in_two_splits(tmp_path):
    for name in ("one", "other"):
        write_data(tmp_path / name, seed=3)
    for domain in ("math", "code"):
        seen = []
        for split, count in SPLITS.items():
            text = (tmp_path / "one" / f"{domain}_{split}.jsonl").read_text()
            assert text == (tmp_path / "other" / f"{domain}_{split}.jsonl").read_text()
            seen += [question(json.loads(line)) for line in text.splitlines()]
            assert len(text.splitlines()) == count
        assert len(set(seen)) == len(seen) == sum(SPLITS.values())
