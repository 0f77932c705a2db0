"""Corpus documents and prompt rows, as dicts in the order in which they are written."""

from collections.abc import Container, Iterator, Mapping, Set
from random import Random

from gopd_lightning.nano.code_task import CodeProblem, code_problem, hidden_tests
from gopd_lightning.nano.habits import HABITS
from gopd_lightning.nano.math_task import MathProblem, math_problem

MATH_SHARE = 0.6

Record = dict[str, str]


def draw_problem(rng: Random, domain: str) -> MathProblem | CodeProblem:
    """Draw a problem.

    Args:
        rng: Source of chance.
        domain: "math" or "code".
    """
    return math_problem(rng) if domain == "math" else code_problem(rng)


def document(rng: Random, withheld: Container[str] = (), habits: Mapping[str, float] = HABITS) -> Record:
    """Draw a corpus document: a prompt with a response that follows habits, and has noise.

    Args:
        rng: Source of chance.
        withheld: Prompts that the corpus must not hold.
        habits: Probability of following each habit.

    Returns:
        {"prompt", "domain", "response"}.
    """
    domain = "math" if rng.random() < MATH_SHARE else "code"
    problem = draw_problem(rng, domain)
    while problem.prompt in withheld:
        problem = draw_problem(rng, domain)
    response = problem.noisy_response(rng, _followed(rng, problem.habits, habits))
    return {"prompt": problem.prompt, "domain": domain, "response": response}


def _followed(rng: Random, habits: tuple[str, ...], rates: Mapping[str, float]) -> Set[str]:
    return {habit for habit in habits if rng.random() < rates[habit]}


def prompt_rows(rng: Random, domain: str, withheld: Container[str] = ()) -> Iterator[Record]:
    """Draw prompts with their answers, without end; no prompt comes twice.

    Args:
        rng: Source of chance.
        domain: "math" or "code".
        withheld: Prompts to leave out.

    Yields:
        {"prompt", "domain", "answer"}; the answer of code is verl's JSON of tests.
    """
    seen: set[str] = set()
    while True:
        problem = draw_problem(rng, domain)
        if problem.prompt in seen or problem.prompt in withheld:
            continue
        answer = problem.answer if isinstance(problem, MathProblem) else hidden_tests(rng, problem)
        if answer is not None:
            seen.add(problem.prompt)
            yield {"prompt": problem.prompt, "domain": domain, "answer": answer}
