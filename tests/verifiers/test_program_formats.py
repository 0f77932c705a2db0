"""The formats of tests: what is read, what is refused, and how programs are judged by them."""

import base64
import json
import os
import pickle
import zlib

import pytest

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import ProgramVerifier
from gopd_lightning.verifiers.programs.formats import canonical, entry_point, livecodebench_answer, parse_tests

HUMAN_EVAL = {
    "entry_point": "twice",
    "prompt": 'import math\n\ndef half(x):\n    return x / 2\n\ndef twice(x):\n    """Double x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": (
        "import random\ndef check(candidate):\n    assert candidate(2) == 4\n    xs = [1]\n"
        "    assert candidate(xs) == [1, 1]\n    for _ in range(20):\n        x = random.randint(0, 10**9)\n"
        "        assert abs(half(candidate(x)) - x) < 0.01\n"
    ),
}
EVALPLUS = {
    "task_id": "Mbpp/0",
    "entry_point": "pairs",
    "prompt": '"""Pair the items of a tuple with their squares."""\n',
    "canonical_solution": "def pairs(t):\n    return tuple((x, x ** 2) for x in t)\n",
    "base_input": [[[1, 2]], [[3]]],
    "plus_input": [[[]], [[4, 5]]],
    "atol": 0,
    "assertion": "assert pairs((1, 2)) == ((1, 1), (2, 4))",
}


@pytest.fixture(scope="module")
def verifier():
    made = ProgramVerifier(wall_seconds=10, allow_weak_sandbox=True)
    yield made
    made.close()


def prompt(answer) -> Prompt:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Prompt(uid=0, domain="code", dataset="d", text="", ids=[], answer=text, source="rows.jsonl row 7")


def verdict(verifier, row, program):
    return verifier.verify([prompt(row)], [program])[0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "no answer"),
        ("", "no answer"),
        ("{not json", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ({}, "no known format"),
        ({"tests": []}, "no known format: .*'tests'"),
        ({"inputs": [], "outputs": []}, "at least one test"),
        ({"inputs": ["1"]}, '"outputs"'),
        ({"outputs": ["1"]}, '"inputs"'),
        ({"inputs": ["1", "2"], "outputs": ["1"]}, "2 inputs but 1 outputs"),
        ({"fn_name": "f", "inputs": [3], "outputs": [3]}, "neither a list"),
        ({"fn_name": "f", "inputs": ["[1"], "outputs": [3]}, "not valid JSON"),
        ({key: HUMAN_EVAL[key] for key in ("entry_point", "prompt", "canonical_solution")}, 'lacks "test"'),
        ({**HUMAN_EVAL, "canonical_solution": None}, 'lacks "canonical_solution"'),
        ({**EVALPLUS, "base_input": []}, "no tests"),
        ({**EVALPLUS, "plus_input": [3]}, "no list of arguments"),
        ({**EVALPLUS, "atol": None}, 'lacks "atol"'),
        ({**EVALPLUS, "atol": "small"}, "small"),
        ({**EVALPLUS, "assertion": "assert ("}, "not Python"),
    ],
)
def test_unusable_tests_are_refused_by_row(verifier, answer, why):
    text = answer if answer is None or isinstance(answer, str) else json.dumps(answer)
    row = Prompt(uid=0, domain="code", dataset="d", text="", ids=[], answer=text, source="rows.jsonl row 7")
    with pytest.raises(InputError, match=rf"rows\.jsonl row 7: .*{why}") as error:
        verifier.check(row)
    assert "\n" not in str(error.value)


def test_ground_truth_may_be_json_within_json(verifier):
    row = json.dumps(json.dumps({"fn_name": "f", "inputs": [[1]], "outputs": [2]}))
    assert verdict(verifier, row, "def f(x): return x + 1").reward == 1.0


@pytest.mark.parametrize(
    "program",
    [
        "def twice(x):\n    return 2 * x",
        "    return x + x\n",
        "```python\ndef twice(x: int):\n    if isinstance(x, list): return x + x\n    return int(2 * half(2 * x))\n```",
        "def twice(x):\n    return 2.0 * x if isinstance(x, int) else x * 2",
    ],
)
def test_human_eval_accepts_what_the_check_accepts(verifier, program):
    assert verdict(verifier, HUMAN_EVAL, program).reason == ""


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def twice(x):\n    return x * x if x == 2 else x", "call 2: expected [1, 1], found [1] (AssertionError"),
        ("def twice(x):\n    return 5", "call 1: expected 4, found 5 (AssertionError"),
        ("def twice(x):\n    return 4 if x == 2 else 1 / 0", "call 2: ZeroDivisionError"),
        ("def double(x):\n    return 2 * x", "call 1: expected 4, found None"),
        ("class A:\n    def __eq__(s, o): return True\ndef twice(x):\n    return A()", "call 1: expected 4, found <A"),
        ("def check(candidate): pass\ndef twice(x): return 0", "call 1: expected 4, found 0"),
    ],
)
def test_human_eval_refuses_what_the_check_refuses(verifier, program, reason):
    found = verdict(verifier, HUMAN_EVAL, program)
    assert (found.reward, found.crashed) == (0.0, False)
    assert found.reason.startswith(reason)


def test_program_never_sees_the_check(verifier):
    spy = "def twice(x):\n    return 2 * x if 'check' not in globals() and 'record_calls' not in globals() else 0"
    assert verdict(verifier, HUMAN_EVAL, spy).reward == 1.0


def test_random_arguments_of_a_check_are_the_same_for_every_program(verifier):
    calls = []
    for extra in ("", "#"):
        row = {**HUMAN_EVAL, "test": HUMAN_EVAL["test"] + extra}
        assert verdict(verifier, row, "def twice(x): return 2 * x").reward == 1.0
        calls.append(parse_tests(json.dumps(row))._calls)
    assert calls[0] == calls[1]
    assert len(calls[0]) == 22


def test_calls_that_the_canonical_solution_saves_the_check_are_found(verifier):
    check = "def check(candidate):\n    assert candidate(1) == 2 or candidate(1) == 3\n    assert candidate(4) == 8\n"
    row = {**HUMAN_EVAL, "test": check}
    assert verdict(verifier, row, "def twice(x): return {1: 3, 4: 8}[x]").reward == 1.0
    assert verdict(verifier, row, "def twice(x): return {1: 5, 4: 8}[x]").reward == 0.0


@pytest.mark.parametrize("broken", [{"canonical_solution": "    return 0\n"}, {"test": "def check(candidate): pass"}])
def test_broken_canonical_solution_is_no_fault_of_the_program(verifier, broken):
    found = verdict(verifier, {**HUMAN_EVAL, **broken}, "def twice(x): return 2 * x")
    assert found.crashed
    assert found.reward == 0.0


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def pairs(t):\n    return tuple(zip(t, (x * x for x in t)))", ""),
        (
            "def pairs(t):\n    return [(x, x * x) for x in t]",
            "base test 1: expected ((1, 1), (2, 4)), found [(1, 1), ",
        ),
        ("def pairs(t):\n    return ((1, 1), (2, 4))", "base test 2: expected ((3, 9),), found ((1, 1), (2, 4))"),
        (
            "def pairs(t):\n    return tuple((x, x * x) for x in t) if t else None",
            "plus test 1: expected (), found None",
        ),
        ("def pairs(t):\n    return tuple((x, (1, 4, 9)[x - 1]) for x in t)", "plus test 2: IndexError"),
        ("def pairs(t):\n    while t != (1, 2): pass", "base test"),
    ],
)
def test_evalplus_compares_with_the_canonical_solution_on_base_and_plus_inputs(verifier, program, reason):
    found = verdict(verifier, EVALPLUS, program)
    assert found.reward == float(not reason)
    assert found.reason.startswith(reason)


def test_slow_canonical_solution_gives_programs_more_time(verifier):
    slow = "def pairs(t):\n    end = __import__('time').process_time() + 0.6\n"
    slow += "    while __import__('time').process_time() < end: pass\n    return t\n"
    row = {**EVALPLUS, "canonical_solution": slow, "plus_input": {}}
    assert verdict(verifier, row, slow + "# again").reward == 1.0


def test_plus_input_on_which_the_canonical_solution_fails_is_left_out(verifier):
    row = {**EVALPLUS, "plus_input": [[[4]], [["x"]], [[5]]]}
    assert verdict(verifier, row, "def pairs(t): return tuple((x, x * x) for x in t)").reward == 1.0
    assert verdict(verifier, row, "def pairs(t): return tuple((x, x * x) for x in t if x != 5)").reason.startswith(
        "plus test 3"
    )
    assert list(parse_tests(json.dumps(row)).left_out) == ["plus test 2"]


def test_values_that_are_too_large_together_are_left_out(verifier):
    row = {**EVALPLUS, "canonical_solution": "def pairs(t):\n    return 'x' * t[0]\n"}
    row |= {"base_input": [[[1]]], "plus_input": [[[4_000_000]], [[5_000_000]], [[10_000_000]], [[2]]]}
    assert verdict(verifier, row, "def pairs(t): return t[0] * 'x'").reward == 1.0
    assert verdict(verifier, row, "def pairs(t): return t[0] * 'x' if t[0] != 2 else ''").reason.startswith(
        "plus test 4"
    )
    assert sorted(parse_tests(json.dumps(row)).left_out) == ["plus test 2", "plus test 3"]


def test_canonical_solution_and_entry_point_are_read_from_the_tests():
    assert canonical(json.dumps(HUMAN_EVAL)) == HUMAN_EVAL["prompt"] + HUMAN_EVAL["canonical_solution"]
    assert canonical('{"inputs": ["1"], "outputs": ["1"]}') is None
    assert entry_point(json.dumps(EVALPLUS)) == "pairs"
    assert entry_point('{"inputs": ["1"], "outputs": ["1"], "fn_name": null}') is None


def packed(content) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(content))).decode()


def livecodebench(private, testtype="stdin", metadata="{}"):
    cases = [{"input": "1\n", "output": "2\n", "testtype": testtype}]
    return {"public_test_cases": json.dumps(cases), "private_test_cases": private, "metadata": metadata}


PRIVATE = json.dumps([{"input": "3\n", "output": "4\n", "testtype": "stdin"}])


@pytest.mark.parametrize("private", [PRIVATE, packed(PRIVATE)])
def test_livecodebench_rows_take_verls_form_public_tests_first(verifier, private):
    answer = livecodebench_answer(livecodebench(private))
    assert json.loads(answer) == {"inputs": ["1\n", "3\n"], "outputs": ["2\n", "4\n"], "fn_name": None}
    assert verdict(verifier, answer, "print(int(input()) + 1)").reward == 1.0


def test_livecodebench_functions_are_called_by_their_name(verifier):
    answer = livecodebench_answer(livecodebench("[]", "functional", '{"func_name": "inc"}'))
    assert verdict(verifier, answer, "class Solution:\n def inc(self, x: int) -> int:\n  return x + 1").reward == 1.0


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil-was-here",)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (livecodebench(packed(Evil())), "mkdir"),
        (livecodebench(packed(7)), "int"),
        (livecodebench("!!"), "private_test_cases"),
        (livecodebench(packed("[3]")), "no list of tests"),
        (livecodebench("[]", "functional"), "func_name"),
        (livecodebench("[]", "interactive"), "testtype"),
    ],
)
def test_unreadable_livecodebench_rows_are_refused_and_nothing_in_them_runs(row, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=why):
        livecodebench_answer(row)
    assert os.listdir(tmp_path) == []
