"""Small list programs: two or three operations in words, a Python function, hidden tests."""

import json
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, combinations
from random import Random
from typing import Any

from gopd_lightning.nano.habits import CODE_NOISE

_TESTS = 6
_SMALLEST, _LARGEST = -6, 14
_DRAWS = 150


@dataclass(frozen=True, slots=True)
class Operation:
    """One list operation.

    Attributes:
        phrases: Ways to say it; `{k}` is the constant.
        right: Python expression in `xs` and `{k}`.
        constants: Values of the constant; (0,) where there is none.
        habit: Name of the wrong habit that the phrase invites; empty for plain operations.
        wrong: What the habit makes of it; `{k}` is then the constant plus `shift`.
        shift: See `wrong`.
    """

    phrases: tuple[str, ...]
    right: str
    constants: tuple[int, ...] = (0,)
    habit: str = ""
    wrong: str = ""
    shift: int = 0


_BOUNDS = tuple(range(1, 9))
_COUNTS = (2, 3, 4, 5)

_HABITUAL = (
    Operation(("keep above {k}",), "[x for x in xs if x>{k}]", _BOUNDS, "keep above", "[x for x in xs if x>={k}]"),
    Operation(("only over {k}",), "[x for x in xs if x>{k}]", _BOUNDS, "only over", "[x for x in xs if x>={k}]"),
    Operation(("keep below {k}",), "[x for x in xs if x<{k}]", _BOUNDS, "keep below", "[x for x in xs if x<={k}]"),
    Operation(("only under {k}",), "[x for x in xs if x<{k}]", _BOUNDS, "only under", "[x for x in xs if x<={k}]"),
    Operation(("take first {k}",), "xs[:{k}]", _COUNTS, "take first", "xs[:{k}]", -1),
    Operation(("skip first {k}",), "xs[{k}:]", _COUNTS, "skip first", "xs[{k}:]", 1),
    Operation(("take last {k}",), "xs[-{k}:]", _COUNTS, "take last", "xs[{k}:]"),
)
_PLAIN = (
    Operation(("skip last {k}", "drop last {k}"), "xs[:-{k}]", _COUNTS),
    Operation(("add {k}", "plus {k}"), "[x+{k} for x in xs]", _BOUNDS),
    Operation(("subtract {k}", "minus {k}"), "[x-{k} for x in xs]", _BOUNDS),
    Operation(("times {k}", "multiply by {k}"), "[x*{k} for x in xs]", (2, 3, 4, 5)),
    Operation(("negate",), "[-x for x in xs]"),
    Operation(("absolute", "drop signs"), "[abs(x) for x in xs]"),
    Operation(("keep even", "only even"), "[x for x in xs if x%2==0]"),
    Operation(("keep odd", "only odd"), "[x for x in xs if x%2==1]"),
    Operation(("sort", "sort up"), "sorted(xs)"),
    Operation(("reverse", "turn round"), "xs[::-1]"),
    Operation(("unique", "drop repeats"), "list(dict.fromkeys(xs))"),
    Operation(("every second",), "xs[::2]"),
)
_HABITUAL_SHARE = 0.30
_REDUCTIONS = {
    "sum": "sum(xs)",
    "min": "min(xs,default=0)",
    "max": "max(xs,default=0)",
    "count": "len(xs)",
    "last": "xs[-1] if xs else 0",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a program: how it is said, its constant, and whether the habit is followed."""

    operation: Operation
    phrase: str
    k: int
    wrong: bool = False

    @property
    def expression(self) -> str:
        """The Python expression."""
        template = self.operation.wrong if self.wrong else self.operation.right
        return template.format(k=self.k + (self.operation.shift if self.wrong else 0))


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """One prompt and the program that it asks for.

    Attributes:
        steps: The operations, rightly read.
        reduction: Key of the last operation, which makes one number of the list.
    """

    steps: tuple[Step, ...]
    reduction: str

    @property
    def prompt(self) -> str:
        """Text that ends with a newline."""
        return "# " + ", ".join([*(step.phrase for step in self.steps), self.reduction]) + "\n"

    @property
    def habits(self) -> tuple[str, ...]:
        """Habits that the prompt's phrases invite, in order, without repetition."""
        return tuple(dict.fromkeys(step.operation.habit for step in self.steps if step.operation.habit))

    def response(self, followed: Set[str] = frozenset()) -> str:
        """A whole function that follows the given wrong habits, and is right where there are none.

        Args:
            followed: Some of `habits`.
        """
        return _written(self._read(followed), self.reduction)

    def noisy_response(self, rng: Random, followed: Set[str]) -> str:
        """As `response`, now and then with one or more of the faults of `CODE_NOISE`.

        Args:
            rng: Source of chance.
            followed: Some of `habits`.
        """
        steps = list(self._read(followed))
        place = rng.randrange(len(steps))
        if rng.random() < CODE_NOISE["constant"]:
            steps[place] = replace(steps[place], k=max(1, steps[place].k + rng.choice((-1, 1, 2))))
        if rng.random() < CODE_NOISE["operation"]:
            steps[place] = _step(rng)
        if rng.random() < CODE_NOISE["missing"]:
            del steps[place]
        if rng.random() < CODE_NOISE["order"]:
            rng.shuffle(steps)
        text = _written(steps, self.reduction)
        return _broken(rng, text) if rng.random() < CODE_NOISE["syntax"] else text

    def run(self, xs: Sequence[int], followed: Set[str] = frozenset()) -> Any:
        """What the program returns for a list under the given reading."""
        values = list(xs)
        for step in self._read(followed):
            values = _function(step.expression)(values)
        return _function(_REDUCTIONS[self.reduction])(values)

    def _read(self, followed: Set[str]) -> tuple[Step, ...]:
        return tuple(replace(step, wrong=step.operation.habit in followed) for step in self.steps)


def code_problem(rng: Random) -> CodeProblem:
    """Draw a problem of two or three operations.

    Args:
        rng: Source of chance.
    """
    steps = tuple(_step(rng) for _ in range(rng.choice((2, 3))))
    return CodeProblem(steps, rng.choice(tuple(_REDUCTIONS)))


def hidden_tests(rng: Random, problem: CodeProblem) -> str | None:
    """Draw tests that every wrong reading of the prompt fails.

    Args:
        rng: Source of chance.
        problem: The problem.

    Returns:
        verl's JSON with `fn_name`, `inputs` and `outputs`; None when some wrong reading could not be told
        apart (it may be the same function, as in "keep above 2, keep above 5") or all outputs are the same.
    """
    sizes = range(1, len(problem.habits) + 1)
    every = chain.from_iterable(combinations(problem.habits, size) for size in sizes)
    unseen = [frozenset(followed) for followed in every]
    lists: list[list[int]] = []
    for _ in range(_DRAWS):
        if not unseen or len(lists) == _TESTS:
            break
        candidate = _list(rng)
        left = [followed for followed in unseen if problem.run(candidate) == problem.run(candidate, followed)]
        if len(left) < len(unseen):
            unseen = left
            lists.append(candidate)
    lists += [_list(rng) for _ in range(_TESTS - len(lists))]
    outputs = [problem.run(xs) for xs in lists]
    if unseen or len(set(outputs)) == 1:
        return None
    tests = {"fn_name": "f", "inputs": [[xs] for xs in lists], "outputs": outputs}
    return json.dumps(tests, separators=(",", ":"))


def _list(rng: Random) -> list[int]:
    """Values of a random window, so that narrow lists (many ties) and wide ones both occur."""
    low = rng.randint(_SMALLEST, 6)
    high = rng.randint(low + 3, _LARGEST)
    return [rng.randint(low, high) for _ in range(rng.randint(7, 11))]


def _step(rng: Random) -> Step:
    operation = rng.choice(_HABITUAL if rng.random() < _HABITUAL_SHARE else _PLAIN)
    k = rng.choice(operation.constants)
    return Step(operation, rng.choice(operation.phrases).format(k=k), k)


def _written(steps: Sequence[Step], reduction: str) -> str:
    lines = ["def f(xs):", *(f" xs={step.expression}" for step in steps), f" return {_REDUCTIONS[reduction]}"]
    return "\n".join(lines)


def _broken(rng: Random, text: str) -> str:
    places = [place for place, sign in enumerate(text) if sign in "()[]:"]
    place = rng.choice(places)
    return text[:place] + text[place + 1 :]


@cache
def _function(expression: str) -> Callable[[list[int]], Any]:
    return eval(f"lambda xs: {expression}")  # type: ignore[no-any-return]  # our own templates only
