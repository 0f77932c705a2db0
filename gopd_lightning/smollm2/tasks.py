r"""Two verifiable domains for a model of 135 million weights: short sums, and short Python functions on lists.

Both are asked as chats with one answered example, which says how an answer looks (\boxed{} or a fenced block): without
it the model talks, and an expert would mostly learn the format.
"""

import json
from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from typing import NamedTuple

Row = dict[str, object]
_TESTS = 6
_NAMES = ("Tom", "Ann", "Sam", "Eva", "Max", "Mia")
_THINGS = ("books", "pens", "coins", "eggs", "cards", "nuts")
_GAINS = ("buys", "finds", "wins")
_LOSSES = ("sells", "loses", "gives away")


def math_rows(rng: Random) -> Iterator[Row]:
    """Endless sums of two to four terms, half of them as stories; no two alike.

    Args:
        rng: Source of chance.
    """
    seen = set()
    while True:
        terms = _terms(rng)
        question = _sum(terms) if rng.random() < 0.5 else _story(terms, rng)
        if question not in seen:
            seen.add(question)
            yield _row("math", _MATH_EXAMPLE, question, str(sum(terms)))


def code_rows(rng: Random) -> Iterator[Row]:
    """Every function once, in random order: which numbers of a list, what is made of each, what of all.

    Args:
        rng: Source of chance.
    """
    tasks = list(product(_REDUCTIONS, _CHANGES, _CHOICES))
    rng.shuffle(tasks)
    for task in tasks:
        reduction, change, choice = (part.words for part in task)
        words = reduction.format(change.format(choice))
        question = f"Write a Python function f(xs) that returns {words} in the list xs."
        yield _row("code", _CODE_EXAMPLE, question, _tests(*task, rng))


# Sums

_MATH_EXAMPLE = ("Calculate 20 + 5 - 3. Write the answer in \\boxed{}.", "20 + 5 = 25\n25 - 3 = 22\n\\boxed{22}")


def _terms(rng: Random) -> list[int]:
    """Signed numbers whose partial sums stay at or above 0."""
    terms = [rng.randint(2, 99)]
    for _ in range(rng.choice((1, 2, 2, 3))):
        size = rng.randint(2, 60)
        terms.append(size if rng.random() < 0.5 or size > sum(terms) else -size)
    return terms


def _sum(terms: list[int]) -> str:
    written = f"{terms[0]}" + "".join(f" {'+' if term > 0 else '-'} {abs(term)}" for term in terms[1:])
    return f"Calculate {written}. Write the answer in \\boxed{{}}."


def _story(terms: list[int], rng: Random) -> str:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    happened = (f"{name} {rng.choice(_GAINS if term > 0 else _LOSSES)} {abs(term)} {thing}." for term in terms[1:])
    told = " ".join(happened)
    return f"{name} has {terms[0]} {thing}. {told} How many {thing} does {name} have? Write the answer in \\boxed{{}}."


# Functions

_CODE_EXAMPLE = (
    "Write a Python function f(xs) that returns the last of the numbers in the list xs.",
    "```python\ndef f(xs):\n    return xs[-1]\n```",
)


class _Part(NamedTuple):
    """A part of a description and what it means."""

    words: str
    of: Callable[..., object]


def _product(numbers: list[int]) -> int:
    found = 1
    for number in numbers:
        found *= number
    return found


_REDUCTIONS = (
    _Part("the sum of {}", sum),
    _Part("the number of {}", len),
    _Part("the largest of {}", max),
    _Part("the smallest of {}", min),
    _Part("the product of {}", _product),
    _Part("the first of {}", lambda found: found[0]),
    _Part("a list of {}", list),
    _Part("a sorted list of {}", sorted),
)
_CHANGES = (
    _Part("{}", lambda x: x),
    _Part("the squares of {}", lambda x: x * x),
    _Part("the cubes of {}", lambda x: x**3),
    _Part("the absolute values of {}", abs),
    *(_Part(f"{k} times {{}}", lambda x, k=k: k * x) for k in range(2, 6)),
    *(_Part(f"{k} plus {{}}", lambda x, k=k: k + x) for k in range(1, 6)),
)
_CHOICES = (
    _Part("the numbers", lambda x: True),
    _Part("the even numbers", lambda x: x % 2 == 0),
    _Part("the odd numbers", lambda x: x % 2 == 1),
    _Part("the positive numbers", lambda x: x > 0),
    _Part("the negative numbers", lambda x: x < 0),
    *(_Part(f"the numbers greater than {k}", lambda x, k=k: x > k) for k in range(1, 8)),
    *(_Part(f"the numbers less than {k}", lambda x, k=k: x < k) for k in range(1, 8)),
    *(_Part(f"the multiples of {k}", lambda x, k=k: x % k == 0) for k in (3, 4, 5)),
)


def _tests(reduction: _Part, change: _Part, choice: _Part, rng: Random) -> str:
    """Inputs and outputs as verl writes them; every input has a number that is chosen."""
    inputs: list[list[int]] = []
    while len(inputs) < _TESTS:
        xs = [rng.randint(-9, 12) for _ in range(rng.randint(4, 8))]
        if any(map(choice.of, xs)):
            inputs.append(xs)
    outputs = [reduction.of([change.of(x) for x in xs if choice.of(x)]) for xs in inputs]
    return json.dumps({"fn_name": "f", "inputs": [[xs] for xs in inputs], "outputs": outputs})


def _row(domain: str, example: tuple[str, str], question: str, answer: str) -> Row:
    turns = zip(("user", "assistant", "user"), (*example, question), strict=True)
    return {"prompt": [{"role": role, "content": text} for role, text in turns], "domain": domain, "answer": answer}
