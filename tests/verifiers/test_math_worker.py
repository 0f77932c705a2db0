r"""The math verifier's worker processes: time limits, deaths, threads, forks and copies."""

import copy
import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import MathVerifier
from gopd_lightning.verifiers.mathematics import pool

SECONDS = 1.0
VERIFIER = MathVerifier(seconds=SECONDS)

PATHOLOGICAL = {
    "tower": "9^{9^{9^9}}",
    "taller tower": "2^{" * 60 + "2" + "}" * 60,
    "tower in a fraction": r"\frac{1}{9^{9^9}}",
    "negative power": "10^{-999999999}",
    "tower under a root": r"\sqrt{2+9^{9^{9^9}}}",
    "logarithm of a tower": r"\log(9^{9^{9^9}})",
    "remainder of a tower": r"2^{2^{2^{2^{2^2}}}} \mod 7",
    "sine of a tower": r"\sin(10^{10^{10^{10}}})",
    "exponentials": "e^{e^{e^{e^{10}}}}",
    "floor of exponentials": r"\lfloor e^{e^{e^{e}}} \rfloor",
    "large factorial": "(10^{10})!",
    "factorial of a factorial": "((((5!)!)!)!)!",
    "many factorials": "5" + "!" * 400,
    "large binomial": r"\binom{10^9}{5 \cdot 10^8}",
    "large power of a sum": "(x+y+z+w)^{3000}",
    "large power": "x^{10^9}+1",
    "infinite sum": r"\sum_{n=1}^{\infty} \frac{\sin n}{n^3}",
    "long sum": r"\sum_{k=1}^{10^9} \sin k",
    "long product": r"\prod_{k=1}^{10^8} k",
    "integral": r"\int_0^1 e^{x^2} \sin(\cos x) dx",
    "hard integral": r"\int \sin(\cos(\tan(x^x))) dx",
    "limit": r"\lim_{x\to 0} \frac{\sin(x^x)}{x}",
    "transcendental equation": r"\tan(\tan(\tan(x)))=x^5+e^x",
    "nested roots": r"\sqrt{x+" * 40 + "1" + "}" * 40,
    "nested fractions": r"\frac{1}{" * 80 + "2" + "}" * 80,
    "nested parentheses": "(" * 450 + "1" + ")" * 450,
    "nested tuples": "(1," * 200 + "1" + ")" * 200,
    "nested sets": r"\{" * 200 + r"\}" * 200,
    "nested sines": r"\sin(" * 100 + "1" + ")" * 100,
    "many braces": "{" * 490 + "1" + "}" * 490,
    "100 kB of digits": "9" * 100_000,
    "100 kB of braces": "{" * 50_000 + "}" * 50_000,
    "100 kB of open boxes": r"\boxed{" * 14_000 + "1",
    "100 kB of boxes without braces": r"\boxed" * 16_000,
    "long sum of variables": "+".join("abcdefghijk"[i % 11] for i in range(450)),
    "long product of sums": "(x+1)(y-2)" * 90,
    "many commas": "x," * 480,
    "many list members": ",".join(rf"\sqrt{{{i}}}" for i in range(2, 90)),
    "many signs": "-" * 900 + "1",
    "many plus-minus": r"1 \pm " * 100 + "1",
    "many equals": "x = " * 240 + "1",
    "many bars": "|" * 400 + "x" + "|" * 400,
    "many quotients": "1/" * 450 + "2",
    "spaces": r"\text{" + " " * 900 + "}1",
    "almost a number": "1" * 900 + "x",
    "almost thousands": "1" + ",000" * 240 + "x",
    "backslashes": "\\" * 900,
    "text without end": r"\text{" * 150,
    "words": "a " * 480 + "1",
    "control characters": "\x00\x01\x7f" * 100,
    "large matrix": r"\begin{pmatrix}" + "1 & " * 200 + r"1\end{pmatrix}",
}


def prompt(answer: str) -> Prompt:
    return Prompt(uid=0, domain="math", dataset="d", text="", ids=[], answer=answer, source="rows.jsonl row 7")


def verdict(gold: str, answer: str, verifier: MathVerifier = VERIFIER):
    return verifier.verify([prompt(gold)], [f"\\boxed{{{answer}}}"])[0]


def algebra(number: int, verifier: MathVerifier = VERIFIER) -> list[float]:
    """A right and a wrong answer that only the worker can tell apart."""
    square = number * number
    answers = [rf"\sqrt{{{square * 2}}}", rf"\sqrt{{{square * 2 + 1}}}"]
    return [verdict(rf"{number}\sqrt{{2}}", answer, verifier).reward for answer in answers]


@pytest.fixture(scope="module", autouse=True)
def warm():
    assert algebra(2) == [1.0, 0.0]
    yield
    VERIFIER.close()


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_a_pathological_answer_gets_its_verdict_in_time_and_the_next_is_graded(name):
    start = time.monotonic()
    found = verdict(r"\sqrt{7}+1", PATHOLOGICAL[name])
    assert time.monotonic() - start < SECONDS + 1
    assert found.reward == 0.0
    assert found.reason
    assert algebra(3 + list(PATHOLOGICAL).index(name)) == [1.0, 0.0]


def test_a_late_answer_says_so_and_costs_no_other_of_its_batch():
    answers = [r"\sqrt{8}", r"\prod_{k=1}^{10^8} k", r"\sqrt{9}", r"2^{3/2}", r"\sum_{k=1}^{10^9} \sin k"]
    start = time.monotonic()
    found = VERIFIER.verify([prompt(r"2\sqrt{2}")] * 5, [f"\\boxed{{{answer}}}" for answer in answers])
    assert [one.reward for one in found] == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert [found[1].reason, found[4].reason] == [f"not compared within {SECONDS:g} s"] * 2
    assert time.monotonic() - start < 2 * SECONDS + 2  # the two late ones side by side, and a start of workers


def test_a_pathological_gold_is_refused_or_read_in_time():
    algebra(90)
    start = time.monotonic()
    VERIFIER.check(prompt("9^{9^{9^9}}"))
    assert verdict("9^{9^{9^9}}", "9^{9^{9^9}}").reward == 1.0
    assert verdict("9^{9^{9^9}}", "9^{9^{9^8}}").reason == "not compared: too many digits"
    assert time.monotonic() - start < SECONDS + 1


def test_answers_are_graded_off_the_main_thread_and_from_several_at_once():
    with ThreadPoolExecutor(4) as threads:
        hard = threads.submit(verdict, r"\sqrt{7}", r"\sum_{k=1}^{10^9} \cos k")
        assert list(threads.map(algebra, range(100, 112))) == [[1.0, 0.0]] * 12
        assert hard.result(timeout=SECONDS + 2).reason == f"not compared within {SECONDS:g} s"


def workers_of(verifier: MathVerifier) -> list[int]:
    running = verifier._pool._running()
    found = [running._idle.get() for _ in range(verifier._pool.workers)]
    for worker in found:
        running._idle.put(worker)
    return [worker._process.pid for worker in found if worker is not None]


def children() -> list[int]:
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(pid) for task in found for pid in task.read_text().split()]


def busy(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "R"


def test_workers_that_were_killed_while_idle_cost_nothing():
    algebra(200)
    for pid in workers_of(VERIFIER):
        os.kill(pid, signal.SIGKILL)
    assert algebra(201) == [1.0, 0.0]


def test_a_failing_start_of_the_workers_is_an_error_and_no_wrong_answer(monkeypatch):
    monkeypatch.setattr(pool, "_SCRIPT", "/nonexistent.py")
    with pytest.raises(OSError):
        verdict(r"\sqrt2", r"\sqrt3", MathVerifier())


def test_copies_and_pickles_keep_the_limit_and_start_their_own_workers():
    for other in (copy.deepcopy(VERIFIER), pickle.loads(pickle.dumps(VERIFIER))):
        assert other.seconds == SECONDS
        assert algebra(300, other) == [1.0, 0.0]
        assert not set(workers_of(other)) & set(workers_of(VERIFIER))
        other.close()


def test_a_forked_process_grades_with_its_own_workers():
    before = workers_of(VERIFIER)
    child = os.fork()
    if child == 0:
        os._exit(0 if algebra(400) == [1.0, 0.0] and not set(workers_of(VERIFIER)) & set(before) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert algebra(401) == [1.0, 0.0]
    assert workers_of(VERIFIER) == before


def test_closing_ends_the_workers_and_grading_goes_on():
    algebra(500)
    pids = workers_of(VERIFIER)
    VERIFIER.close()
    assert pids
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert algebra(501) == [1.0, 0.0]


def test_a_worker_that_is_killed_at_work_costs_its_own_answer_at_most():
    algebra(600)
    with ThreadPoolExecutor(1) as thread:
        hard = thread.submit(verdict, r"\sqrt{7}", r"\sum_{k=1}^{10^9} \tan k")
        time.sleep(SECONDS / 2)
        for pid in [one for one in children() if busy(one)]:
            os.kill(pid, signal.SIGKILL)
        assert hard.result(timeout=60).reason == f"not compared within {SECONDS:g} s"  # it was asked once more
    assert algebra(601) == [1.0, 0.0]


def test_the_memory_of_a_worker_is_limited():
    algebra(700)
    limits = [Path(f"/proc/{pid}/limits").read_text() for pid in workers_of(VERIFIER)]
    assert limits
    assert all(f"Max address space         {2 << 30} " in text for text in limits)
