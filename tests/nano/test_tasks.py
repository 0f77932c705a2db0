"""The two tasks: right answers are right, every wrong habit is wrong, the corpus follows its table."""

import json
from itertools import combinations
from random import Random

import pytest

from gopd_lightning.nano.analysis import habits_in
from gopd_lightning.nano.code_task import CodeProblem, hidden_tests
from gopd_lightning.nano.corpus import document, draw_problem, prompt_rows
from gopd_lightning.nano.habits import CODE_HABITS, HABITS, MATH_HABITS
from gopd_lightning.nano.math_task import MathProblem
from gopd_lightning.records import Prompt
from gopd_lightning.verifiers import MathVerifier, ProgramVerifier

DRAWS = 300
TABLES = {"math": MATH_HABITS, "code": CODE_HABITS}


@pytest.fixture(scope="module")
def verifiers():
    made = {"math": MathVerifier(), "code": ProgramVerifier()}
    yield made
    made["code"].close()


def problems(domain, seed=0, draws=DRAWS):
    """Problems with their answers, as the build makes them."""
    rng = Random(seed)
    found = []
    while len(found) < draws:
        problem = draw_problem(rng, domain)
        answer = problem.answer if isinstance(problem, MathProblem) else hidden_tests(rng, problem)
        if answer is not None:
            found.append((problem, answer))
    return found


def grade(verifier, graded):
    prompts = [
        Prompt(uid=0, domain="", dataset="", text="", ids=[], answer=answer, source="row") for answer, _ in graded
    ]
    for prompt in prompts:
        verifier.check(prompt)
    return [verdict.reward for verdict in verifier.verify(prompts, [response for _, response in graded])]


@pytest.mark.parametrize("domain", ["math", "code"])
def test_right_response_earns_one(verifiers, domain):
    graded = [(answer, problem.response()) for problem, answer in problems(domain)]
    assert grade(verifiers[domain], graded) == [1.0] * DRAWS


@pytest.mark.parametrize("domain", ["math", "code"])
def test_every_wrong_habit_and_every_mixture_of_them_earns_nothing(verifiers, domain):
    graded = [
        (answer, problem.response(frozenset(followed)))
        for problem, answer in problems(domain, seed=1)
        for size in range(1, len(problem.habits) + 1)
        for followed in combinations(problem.habits, size)
    ]
    assert len(graded) > DRAWS / 2
    assert grade(verifiers[domain], graded) == [0.0] * len(graded)


@pytest.mark.parametrize("domain", ["math", "code"])
def test_habits_are_read_off_the_prompt(domain):
    drawn = [problem for problem, _ in problems(domain)]
    assert all(habits_in(problem.prompt) == set(problem.habits) for problem in drawn)
    assert {habit for problem in drawn for habit in problem.habits} == set(TABLES[domain])


@pytest.mark.parametrize("domain", ["math", "code"])
def test_almost_half_of_the_prompts_invite_no_habit(domain):
    plain = [not problem.habits for problem, _ in problems(domain, draws=1500)]
    assert 0.38 < sum(plain) / len(plain) < 0.55


@pytest.mark.parametrize("habit", HABITS)
def test_corpus_follows_each_habit_as_often_as_the_table_says(habit):
    rng = Random(7)
    certain = {name: float(name == habit) for name in HABITS}
    changed = same = 0
    while changed + same < 120:
        state = rng.getstate()
        wrong = document(rng, habits=certain)
        rng.setstate(state)
        right = document(rng, habits=dict.fromkeys(HABITS, 0.0))
        if habits_in(wrong["prompt"]) == {habit}:
            changed += wrong["response"] != right["response"]
            same += wrong["response"] == right["response"]
    assert changed > 0.85 * 120  # the noise "missing", "operation" and "bare" may hide a habit


def test_expression_answers_are_what_python_calculates():
    drawn = [problem for problem, _ in problems("math") if " " not in problem.prompt[3:]]
    assert len(drawn) > DRAWS / 4
    for problem in drawn:
        assert int(problem.answer) == eval(problem.prompt[3:])


def test_story_habits_change_the_story_as_described():
    term_sets = [(p, p.terms) for p, _ in problems("math", seed=3, draws=600) if p.habits in (("lend",), ("give",))]
    assert term_sets
    for problem, terms in term_sets:
        habit = problem.habits[0]
        touched = [term for term in terms if term.habit == habit]
        gain = sum(2 * t.a if habit == "lend" else (t.a - 1) * t.b for t in touched)
        expected = int(problem.answer) + gain
        assert problem.response({habit}).endswith(f"\\boxed{{{expected}}}")


def test_values_stay_small():
    answers = [int(answer) for _, answer in problems("math", draws=1000)]
    assert min(answers) >= 0
    assert max(answers) <= 60


def test_tests_are_six_short_lists_of_small_numbers():
    for _, answer in problems("code", draws=100):
        tests = json.loads(answer)
        lists = [arguments[0] for arguments in tests["inputs"]]
        assert len(lists) == len(tests["outputs"]) == 6
        assert all(7 <= len(xs) <= 11 and min(xs) >= -6 and max(xs) <= 14 for xs in lists)
        assert len(set(tests["outputs"])) > 1


def test_prompts_are_never_repeated_or_withheld():
    withheld = {row["prompt"] for row, _ in zip(prompt_rows(Random(0), "code"), range(50), strict=False)}
    rows = [row for row, _ in zip(prompt_rows(Random(0), "code", withheld), range(200), strict=False)]
    prompts = [row["prompt"] for row in rows]
    assert len(set(prompts)) == 200
    assert not withheld & set(prompts)


def test_problem_kinds_are_told_apart_by_domain():
    assert isinstance(draw_problem(Random(0), "math"), MathProblem)
    assert isinstance(draw_problem(Random(0), "code"), CodeProblem)
