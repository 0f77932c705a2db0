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

CHANGES = ((r"the squares of ", "x * x"), (r"the cubes of ", "x ** 3"), (r"the absolute values of ", "abs(x)"))
CHANGES += ((r"(\d) times ", "{} * x"), (r"(\d) plus ", "{} + x"))
CHOICES = ((r"even", "x % 2 == 0"), (r"odd", "x % 2 == 1"), (r"positive", "x > 0"), (r"negative", "x < 0"))
CHOICES += ((r"greater than (\d)", "x > {}"), (r"less than (\d)", "x < {}"), (r"multiples of (\d)", "x % {} == 0"))
REDUCTIONS = {"sum": "sum", "number": "len", "largest": "max", "smallest": "min", "product": "prod"}
REDUCTIONS |= {"first": "next", "a sorted list": "sorted", "a list": "list"}


def understood(table, words, otherwise):
    """The expression of the first pattern that is in the words."""
    found = ((re.search(pattern, words), expression) for pattern, expression in table)
    return next((expression.format(*match.groups()) for match, expression in found if match), otherwise)


def program(question):
    """A reading of the description that shares nothing with the generator."""
    words = re.search(r"returns (.*) in the list xs", question)[1]
    reduce = next(name for said, name in REDUCTIONS.items() if words.startswith((said, f"the {said}")))
    values = f"({understood(CHANGES, words, 'x')} for x in xs if {understood(CHOICES, words, 'True')})"
    values = f"list{values}" if reduce == "len" else values
    return f"```python\nfrom math import prod\ndef f(xs):\n    return {reduce}({values})\n```"


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


def test_the_answer_of_a_sum_is_its_value_and_a_story_says_the_same():
    rows = list(islice(math_rows(Random(0)), 300))
    boxed = []
    for row in rows:
        said = re.sub(r"(sells|loses|gives away) ", "-", question(row))
        said = re.sub(r"([-+]) (\d)", r"\1\2", said)
        boxed.append(f"\\boxed{{{sum(map(int, re.findall(r'[-+]?[0-9]+', said)))}}}")
    assert grade(MathVerifier(), rows, boxed) == [1.0] * len(rows)
    assert sum("has" in question(row) for row in rows) > 100


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
