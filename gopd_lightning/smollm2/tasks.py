r"""Two verifiable domains for a model of 135 million weights: sums of three terms, and Python functions of two numbers.

Both are asked as chats with one answered example, which says how an answer looks (\boxed{} or a fenced block): without
it the model talks, and an expert would mostly learn the format. The tasks are as easy as they are because the base
solves 4 to 5 % of them when sampled at temperature 1 (docs/smollm2.md); of harder ones (stories, functions on lists) it
solves next to none, and reinforcement learning has little to start from.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from random import Random
from typing import NamedTuple

Row = dict[str, object]
_TESTS = 6


def math_rows(rng: Random) -> Iterator[Row]:
    """Endless sums of three terms; no two alike.

    Args:
        rng: Source of chance.
    """
    seen = set()
    while True:
        terms = _terms(rng)
        question = _sum(terms)
        if question not in seen:
            seen.add(question)
            yield _row("math", _MATH_EXAMPLE, question, str(sum(terms)))


def code_rows(rng: Random) -> Iterator[Row]:
    """Every function once, in random order: an operation, and what it is done with.

    Args:
        rng: Source of chance.
    """
    tasks = list(product(_OPERATIONS, _TERMS, _TERMS + _NUMBERS))
    rng.shuffle(tasks)
    for operation, one, other in tasks:
        words = operation.words.format(one.words, other.words)
        question = f"Write a Python function f(x, y) that returns {words}."
        yield _row("code", _CODE_EXAMPLE, question, _tests(operation, one, other, rng))


# Sums

_MATH_EXAMPLE = ("Calculate 14 - 5 + 7. Write the answer in \\boxed{}.", "14 - 5 = 9\n9 + 7 = 16\n\\boxed{16}")


def _terms(rng: Random) -> list[int]:
    """Signed numbers whose partial sums stay at or above 0."""
    terms = [rng.randint(2, 20)]
    for _ in range(2):
        size = rng.randint(2, 15)
        terms.append(size if rng.random() < 0.5 or size > sum(terms) else -size)
    return terms


def _sum(terms: list[int]) -> str:
    written = f"{terms[0]}" + "".join(f" {'+' if term > 0 else '-'} {abs(term)}" for term in terms[1:])
    return f"Calculate {written}. Write the answer in \\boxed{{}}."


# Functions

_CODE_EXAMPLE = (
    "Write a Python function f(x, y) that returns 5 times x minus y.",
    "```python\ndef f(x, y):\n    return 5 * x - y\n```",
)


class _Part(NamedTuple):
    """A part of a description, and what it means: of x and y, or of two values."""

    words: str
    of: Callable[[int, int], int]


def _times_x(k: int, x: int, y: int) -> int:
    return k * x


def _times_y(k: int, x: int, y: int) -> int:
    return k * y


def _number(k: int, x: int, y: int) -> int:
    return k


_OPERATIONS = (
    _Part("{} plus {}", lambda a, b: a + b),
    _Part("{} minus {}", lambda a, b: a - b),
    _Part("the product of {} and {}", lambda a, b: a * b),
    _Part("the difference of {} and {}", lambda a, b: a - b),
    _Part("the larger of {} and {}", max),
    _Part("the smaller of {} and {}", min),
)
_TERMS = (
    _Part("x", lambda x, y: x),
    _Part("y", lambda x, y: y),
    _Part("the square of x", lambda x, y: x * x),
    _Part("the square of y", lambda x, y: y * y),
    *(_Part(f"{k} times x", partial(_times_x, k)) for k in range(2, 10)),
    *(_Part(f"{k} times y", partial(_times_y, k)) for k in range(2, 10)),
)
_NUMBERS = tuple(_Part(str(k), partial(_number, k)) for k in range(1, 10))


def _tests(operation: _Part, one: _Part, other: _Part, rng: Random) -> str:
    """Inputs and outputs as verl writes them."""
    inputs = [(rng.randint(-9, 12), rng.randint(-9, 12)) for _ in range(_TESTS)]
    outputs = [operation.of(one.of(x, y), other.of(x, y)) for x, y in inputs]
    return json.dumps({"fn_name": "f", "inputs": inputs, "outputs": outputs})


def _row(domain: str, example: tuple[str, str], question: str, answer: str) -> Row:
    turns = zip(("user", "assistant", "user"), (*example, question), strict=True)
    return {"prompt": [{"role": role, "content": text} for role, text in turns], "domain": domain, "answer": answer}
