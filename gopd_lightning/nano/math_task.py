r"""Multi-step arithmetic: expressions and short stories, a chain of thought, an answer in \boxed{}."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from random import Random

from gopd_lightning.nano.habits import MATH_NOISE

_LARGEST = 60
_LARGEST_MISREAD = 150
_LATER_PRODUCTS = 0.34  # chance of a product after the first term; about 45 % of expressions then have none
_NAMES = ("Tom", "Ann", "Sam", "Eva", "Max", "Mia")
_THINGS = ("books", "pens", "coins", "eggs", "cards", "nuts")
_VERBS = ("find", "find", "lose", "lose", "buy", "buy", "win", "lend", "give", "pay")


@dataclass(frozen=True, slots=True)
class Term:
    """One summand, `sign * a` or `sign * a * b`.

    Attributes:
        sign: 1 or -1.
        a: First factor.
        b: Second factor, if any.
        habit: The phrase's habit in a story; empty for plain phrases.
    """

    sign: int
    a: int
    b: int | None = None
    habit: str = ""

    @property
    def value(self) -> int:
        """The product, without the sign."""
        return self.a if self.b is None else self.a * self.b


@dataclass(frozen=True, slots=True)
class MathProblem:
    """One prompt and how it is rightly read.

    Attributes:
        prompt: Text that ends with a newline.
        terms: The right reading; the first term is positive.
        habits: Habits that the prompt's phrases invite, in order, without repetition.
    """

    prompt: str
    terms: tuple[Term, ...]
    habits: tuple[str, ...]

    @property
    def answer(self) -> str:
        """The right value."""
        return str(sum(term.sign * term.value for term in self.terms))

    def response(self, followed: Set[str] = frozenset()) -> str:
        """Chain of thought that follows the given wrong habits, and is right where there are none.

        Args:
            followed: Some of `habits`.
        """
        pad = _Scratchpad()
        if _ltr(followed):
            return pad.finish(pad.left_to_right(self.terms))
        return pad.finish(pad.products_first(_misheard(self.terms, followed)))

    def noisy_response(self, rng: Random, followed: Set[str]) -> str:
        """As `response`, now and then with one of the slips of `MATH_NOISE` (not in a left-to-right reading).

        Args:
            rng: Source of chance.
            followed: Some of `habits`.
        """
        if _ltr(followed):
            return self.response(followed)
        terms = _misheard(self.terms, followed)
        if rng.random() < MATH_NOISE["misread"]:
            terms = _misread(rng, terms)
        steps = len(terms) - 1 + sum(term.b is not None for term in terms)
        pad = _Scratchpad()
        if steps and rng.random() < MATH_NOISE["slip"]:
            pad = _Scratchpad(rng.randrange(steps), rng.choice((1, 1, 2, 10)))
        pad.bare = rng.random() < MATH_NOISE["bare"]
        return pad.finish(pad.products_first(terms))


class _Scratchpad:
    """Writes calculation steps down; may miscalculate one of them."""

    def __init__(self, slip_at: int = -1, slip_by: int = 0) -> None:
        self.steps: list[str] = []
        self.bare = False
        self._slip_at, self._slip_by = slip_at, slip_by

    def step(self, left: int, sign: str, right: int) -> int:
        value = {"+": left + right, "-": left - right, "*": left * right}[sign]
        value += self._slip_by if len(self.steps) == self._slip_at else 0
        self.steps.append(f"{left}{sign}{right}={value}")
        return value

    def products_first(self, terms: Sequence[Term]) -> int:
        values = [term.a if term.b is None else self.step(term.a, "*", term.b) for term in terms]
        total = values[0]
        for term, value in zip(terms[1:], values[1:], strict=True):
            total = self.step(total, "+" if term.sign > 0 else "-", value)
        return total

    def left_to_right(self, terms: Sequence[Term]) -> int:
        total = 0
        for position, term in enumerate(terms):
            total = self.step(total, "+" if term.sign > 0 else "-", term.a) if position else term.a
            total = total if term.b is None else self.step(total, "*", term.b)
        return total

    def finish(self, value: int) -> str:
        box = f"\\boxed{{{value}}}"
        return box if self.bare else ";".join([*self.steps, box])


def _ltr(followed: Set[str]) -> bool:
    return "ltr+" in followed or "ltr-" in followed


def _misheard(terms: Sequence[Term], followed: Set[str]) -> tuple[Term, ...]:
    return tuple(_mishear(term) if term.habit in followed else term for term in terms)


def _mishear(term: Term) -> Term:
    if term.habit == "give":
        return replace(term, a=term.b or term.a, b=None)
    return replace(term, sign=1)  # lend, pay


def _misread(rng: Random, terms: tuple[Term, ...]) -> tuple[Term, ...]:
    """Forget a term or change one of its numbers; unchanged when no such reading stays non-negative."""
    for _ in range(20):
        place = rng.randrange(1, len(terms)) if len(terms) > 1 else 0
        term = replace(terms[place], a=terms[place].a + rng.choice((-2, -1, 1, 2)))
        kept = () if place and rng.random() < 0.5 else (term,)
        reading = (*terms[:place], *kept, *terms[place + 1 :])
        if term.a > 0 and min(_totals(reading)) >= 0:
            return reading
    return terms


def _totals(terms: Sequence[Term]) -> Iterator[int]:
    total = 0
    for term in terms:
        total += term.sign * term.value
        yield total


def _within(terms: Sequence[Term]) -> bool:
    return all(0 <= total <= _LARGEST for total in _totals(terms))


def math_problem(rng: Random) -> MathProblem:
    """Draw a problem: an expression or a story, half each.

    The shape comes first and then numbers until they fit it: no phrase is rare because its numbers are large.

    Args:
        rng: Source of chance.
    """
    if rng.random() < 0.5:
        return _expression(rng)
    return _story(rng)


def _expression(rng: Random) -> MathProblem:
    count = rng.choice((2, 3, 3, 4))
    shape = [(1, rng.random() < 0.3)]
    shape += [(rng.choice((1, -1)), rng.random() < _LATER_PRODUCTS) for _ in range(count - 1)]
    while True:
        terms = [_term(rng, sign, product) for sign, product in shape]
        habits = _ltr_habit(terms)
        if _within(terms) and (not habits or _tells_apart(terms)):
            return MathProblem(f"Q: {_written(terms)}\n", tuple(terms), habits)


def _term(rng: Random, sign: int, product: bool) -> Term:
    if product:
        return Term(sign, rng.randint(2, 6), rng.randint(2, 6))
    return Term(sign, rng.randint(1, 30))


def _ltr_habit(terms: Sequence[Term]) -> tuple[str, ...]:
    for term in terms[1:]:
        if term.b is not None:
            return ("ltr+",) if term.sign > 0 else ("ltr-",)
    return ()


def _tells_apart(terms: Sequence[Term]) -> bool:
    """Whether a left-to-right reading stays small, and gives another value than the right one."""
    pad = _Scratchpad()
    wrong = pad.left_to_right(terms)
    values = [int(step.split("=")[1]) for step in pad.steps]
    right = sum(term.sign * term.value for term in terms)
    return wrong != right and all(0 <= value <= _LARGEST_MISREAD for value in values)


def _written(terms: Sequence[Term]) -> str:
    parts = [("+" if term.sign > 0 else "-") + f"{term.a}" + (f"*{term.b}" if term.b else "") for term in terms]
    return "".join(parts)[1:]


def _story(rng: Random) -> MathProblem:
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    verbs = [rng.choice(_VERBS) for _ in range(rng.choice((2, 2, 3)))]
    while True:
        start = rng.randint(5, 40)
        events = [_event(rng, name, verb) for verb in verbs]
        terms = (Term(1, start), *(term for _, term in events))
        if _within(terms):
            break
    told = " ".join(sentence for sentence, _ in events)
    prompt = f"Q: {name} has {start} {things}. {told} How many {things}?\n"
    habits = tuple(dict.fromkeys(term.habit for term in terms if term.habit))
    return MathProblem(prompt, terms, habits)


def _event(rng: Random, name: str, verb: str) -> tuple[str, Term]:
    x, y, z = rng.randint(2, 15), rng.randint(2, 6), rng.randint(2, 6)
    if verb == "give":
        return f"{name} gives {y} friends {z} each.", Term(-1, y, z, "give")
    if verb == "buy":
        return f"{name} buys {y} bags of {z}.", Term(1, y, z)
    sign = 1 if verb in ("find", "win") else -1
    return f"{name} {verb}s {x}.", Term(sign, x, None, verb if verb in ("lend", "pay") else "")
