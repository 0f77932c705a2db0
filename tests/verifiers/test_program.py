"""Verdicts on programs: reasons, the cache, copies, and whose fault a lost sandbox is."""

import copy
import json
import os
import pickle

import pytest

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt, Verdict
from gopd_lightning.verifiers import ProgramVerifier, Verifier, extract_program

SUM = "def f(xs):\n return sum(xs)"


@pytest.fixture(scope="module")
def verifier():
    made = ProgramVerifier(cpu_seconds=1, wall_seconds=2.5, memory_mb=256, allow_weak_sandbox=True)
    yield made
    made.close()


def prompt(answer) -> Prompt:
    text = answer if answer is None or isinstance(answer, str) else json.dumps(answer)
    return Prompt(uid=0, domain="code", dataset="d", text="", ids=[], answer=text, source="rows.jsonl row 7")


def function(inputs, outputs):
    return prompt({"fn_name": "f", "inputs": inputs, "outputs": outputs})


ONE = function([[[1, 2]], [[5]]], [3, 5])


def verdict(verifier, case, program) -> Verdict:
    return verifier.verify([case], [program])[0]


def reward(verifier, case, program) -> float:
    return verdict(verifier, case, program).reward


class Pool:
    """A pool whose workers die with some programs, and answer right otherwise."""

    def __init__(self, deadly=lambda program, time: False):
        self.owner, self.asked, self.deadly = os.getpid(), [], deadly

    def ask(self, messages):
        return [self.answer(job["program"], job["inputs"]) for job, _ in messages]

    def answer(self, program, inputs):
        self.asked.append(program)
        if self.deadly(program, self.asked.count(program)):
            return {"error": "the worker died"}
        return {"outputs": [3, 5][: len(inputs)], "error": None, "cpu_seconds": 0.0}

    def close(self):
        pass


def with_pool(pool) -> ProgramVerifier:
    made = ProgramVerifier()
    made._pool = pool
    return made


def test_right_program_earns_one_and_its_source_is_the_answer(verifier):
    assert verdict(verifier, ONE, f"So:\n```python\n{SUM}\n```") == Verdict(reward=1.0, answer=SUM + "\n")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(xs):\n return xs[0]", "test 1: expected 3, found 1"),
        ("def f(xs):\n return len(xs) + 1", "test 2: expected 5, found 2"),
        ("def f(xs):\n return [1] * 999", "test 1: expected 3, found [1, 1, 1"),
        ("def f(xs:\n return 1", "SyntaxError"),
        ("def g(xs):\n return sum(xs)", "NameError"),
        ("def f(xs):\n return sum(xs) if len(xs) > 1 else 1 / 0", "test 2: ZeroDivisionError"),
        ("import sys\nsys.exit(0)\n" + SUM, "exited before the last test"),
        ("def f(xs):\n while True: pass", "killed: CPU time above 1 s"),
        ("def f(xs):\n return f(xs)", "RecursionError"),
        ("def f(xs):\n return object()", "test 1: expected 3, found <object object>"),
        ("class A:\n def __eq__(self, other): return True\ndef f(xs):\n return A()", "test 1: expected 3"),
        ("\ud800", ""),
    ],
)
def test_wrong_program_earns_nothing_and_the_reason_says_why(verifier, program, reason):
    found = verdict(verifier, ONE, program)
    assert found.reward == 0.0
    assert not found.crashed
    assert found.reason.startswith(reason)
    assert found.reason
    assert "\n" not in found.reason
    assert len(found.reason) < 250


@pytest.mark.parametrize("response", ["", " \n", "```python\n```"])
def test_response_without_a_program_has_no_answer(verifier, response):
    assert verdict(verifier, ONE, response) == Verdict(reward=0.0, reason="no program")


def test_stdin_programs_are_compared_line_by_line(verifier):
    case = prompt({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\nok\n", "7\nok"]})
    right = "a, b = map(int, input().split())\nif __name__ == '__main__':\n print(a + b, ' ')\n print('ok')"
    assert reward(verifier, case, right) == 1.0
    assert reward(verifier, case, right + "\nexit()") == 1.0
    assert reward(verifier, case, right + "\nexit(3)") == 0.0
    assert verdict(verifier, case, "print(3)\nprint('ok')").reason == r"test 2: expected '7\nok', found '3\nok'"


def test_verl_string_arguments_are_one_json_a_line(verifier):
    case = function(["[1, 2]\n3", "[]\n0"], ["6", "0"])
    assert reward(verifier, case, "def f(xs, y):\n return sum(xs) + y") == 1.0
    assert reward(verifier, case, "class Solution:\n def f(self, xs, y):\n  return sum(xs) + y") == 1.0


def test_equal_programs_run_once_and_verdicts_are_kept():
    verifier = with_pool(Pool())
    other = function([[[2, 2]], [[5]]], [5, 5])
    found = verifier.verify([ONE, ONE, other, ONE], [SUM, SUM, SUM, "wrong"])
    assert [one.reward for one in found] == [1.0, 1.0, 0.0, 1.0]
    assert verifier.programs_run == 3
    assert [one.reward for one in verifier.verify([other, ONE], [SUM, SUM])] == [0.0, 1.0]
    assert verifier.programs_run == 3


def test_job_that_loses_its_worker_gets_another():
    verifier = with_pool(Pool(deadly=lambda program, time: time == 1))
    assert verifier.verify([ONE] * 2, [SUM, SUM + "#"]) == [
        Verdict(reward=1.0, answer=SUM),
        Verdict(reward=1.0, answer=SUM + "#"),
    ]


def test_program_that_kills_two_workers_is_at_fault_itself():
    verifier = with_pool(Pool(deadly=lambda program, time: program == "bomb"))
    bomb, fine = verifier.verify([ONE] * 2, ["bomb", SUM])
    assert bomb == Verdict(reward=0.0, answer="bomb", reason="killed: the worker died")
    assert fine.reward == 1.0


def test_sandbox_that_cannot_run_an_empty_program_is_at_fault_and_nothing_is_kept():
    pool = Pool(deadly=lambda program, time: True)
    verifier = with_pool(pool)
    (found,) = verifier.verify([ONE], [SUM])
    assert found.crashed
    assert found.reason == "the sandbox failed: the worker died"
    pool.deadly = lambda program, time: False
    assert verifier.verify([ONE], [SUM])[0].reward == 1.0


def test_start_says_which_sandbox_is_in_force(verifier):
    assert "sandbox" in verifier.start().lower() or "bubblewrap" in verifier.start()


def test_copies_and_pickles_start_their_own_workers(verifier):
    assert reward(verifier, ONE, SUM) == 1.0
    for twin in (copy.deepcopy(verifier), pickle.loads(pickle.dumps(verifier))):
        assert (twin.wall_seconds, twin.memory_mb, twin.allow_weak_sandbox, twin._pool) == (2.5, 256, True, None)
        assert reward(twin, ONE, SUM) == 1.0
        twin.close()


def test_forked_copy_leaves_the_pool_of_its_parent_alone(verifier):
    assert reward(verifier, ONE, SUM + "  # before the fork") == 1.0
    child = os.fork()
    if child == 0:
        right = reward(verifier, ONE, SUM + "  # in the child") == 1.0
        verifier.close()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert reward(verifier, ONE, SUM + "  # after the fork") == 1.0


def test_closed_verifier_can_start_again():
    verifier = ProgramVerifier(workers=1, allow_weak_sandbox=True)
    assert reward(verifier, ONE, SUM) == 1.0
    verifier.close()
    assert reward(verifier, ONE, SUM + " # again") == 1.0
    verifier.close()


@pytest.mark.parametrize("limit", ["cpu_seconds", "wall_seconds", "memory_mb", "workers"])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_must_be_positive(limit, value):
    with pytest.raises(InputError, match=limit):
        ProgramVerifier(**{limit: value})


def test_program_verifier_is_a_verifier(verifier):
    assert isinstance(verifier, Verifier)
    verifier.check(ONE)
    assert extract_program(SUM) == SUM
