r"""The math verifier: is what stands in the last \boxed{...} of a response equal to the answer?"""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt, Verdict
from gopd_lightning.verifiers.mathematics.answer import PLAIN_NUMBER, extract_boxed
from gopd_lightning.verifiers.mathematics.gold import broken_command, gold_of
from gopd_lightning.verifiers.mathematics.leaf import Leaf, question
from gopd_lightning.verifiers.mathematics.pool import MathPool, Pair, Result
from gopd_lightning.verifiers.mathematics.shapes import Shape, leaves, questions, same_shape, shape_of
from gopd_lightning.verifiers.protocol import Verifier

# A sum, difference or `*` product that was left to the grader: `10+20`, `7 * 6`, `)-(`.
_UNEVALUATED = re.compile(r"[\w)}\]]\s*[-+*]\s*[\w({\[\\]")
_LONGEST_ANSWER = 1000
_SHOWN = 80
_CACHE_SIZE = 65536
_WORKERS = 2

_gold_shape = lru_cache(maxsize=4096)(shape_of)


@dataclass(frozen=True, slots=True)
class _Case:
    """A ground truth and an answer, and what the worker must be asked to tell whether they are equal."""

    gold: Shape
    answer: Shape
    asked: Sequence[Pair]


class MathVerifier(Verifier):
    r"""Reward 1.0 when the last \boxed{...} equals the answer, else 0.0.

    Simple numbers and text are compared directly and exactly; all else goes to math-verify in worker processes,
    which are started when first needed and killed when an answer takes too long. The same rule serves training and
    evaluation. Where the answer is a plain number, an arithmetic expression that was left unevaluated
    (`\boxed{10+20}`) is refused: it would let a model earn the reward by copying the question.

    What is equal: the ground truth decides. Names (`x = 5`), units and degrees may be missing on either side, but
    two different units are not equal. A percent sign is a unit or a factor: 50% is 50 and 0.5, but 0.5 is never
    0.5%. Order counts in tuples and intervals, not in lists and sets. Rounding is not equality.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        """Set the time limit.

        Args:
            seconds: Longest time for comparing one answer, in seconds; a later answer is wrong.

        Raises:
            InputError: It is not positive.
        """
        if not seconds > 0:
            raise InputError(f"MathVerifier.seconds is {seconds}; give a positive number")
        self.seconds = seconds
        self._pool = MathPool(seconds, _WORKERS)
        self._verdicts: dict[Pair, Verdict] = {}
        self._readable: dict[str, bool] = {}

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt whose answer is missing, broken or cannot be read.

        Args:
            prompt: A prompt that will be graded.

        Raises:
            InputError: The message names the row and what is wrong with its answer.
        """
        self.check_all([prompt])

    def check_all(self, prompts: Sequence[Prompt]) -> None:
        """Check many prompts as `check` does, several answers side by side.

        Args:
            prompts: Prompts that will be graded.

        Raises:
            InputError: The message names the first row at fault and what is wrong with its answer.
        """
        rows = [(prompt, gold) for prompt in prompts if not PLAIN_NUMBER.fullmatch(gold := gold_of(prompt))]
        for prompt, gold in rows:
            _refuse_broken(prompt, gold)
        self._read({gold for _, gold in rows if gold not in self._readable})
        for prompt, gold in rows:
            if not self._readable[gold]:
                raise InputError(f"{_row(prompt, gold)} is not mathematics; mend or drop the row")

    def verify(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade a batch; equal answers to equal questions are compared once.

        Args:
            prompts: One prompt a response.
            responses: Response texts.

        Returns:
            One verdict a response.

        Raises:
            OSError: A hard answer came and no worker starts.
        """
        found = [_settled(gold_of(one), extract_boxed(text)) for one, text in zip(prompts, responses, strict=True)]
        hard = dict.fromkeys(one for one in found if isinstance(one, tuple))
        known = {pair: self._verdicts[pair] for pair in hard if pair in self._verdicts}
        known |= self._compare([pair for pair in hard if pair not in known])
        self._remember(known)
        return [known[one] if isinstance(one, tuple) else one for one in found]

    def close(self) -> None:
        """End the worker processes; the next hard answer starts new ones."""
        self._pool.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["seconds"])  # type: ignore[misc]

    def _read(self, golds: Set[str]) -> None:
        """Find out which ground truths the worker can parse; numbers and text need no worker."""
        needed = {gold: [_formula(leaf) for leaf in leaves(shape_of(gold)) if _is_formula(leaf)] for gold in golds}
        formulas = sorted({text for own in needed.values() for text in own})
        parsed = dict(zip(formulas, self._pool.parses(formulas), strict=True))
        self._readable.update({gold: all(parsed[text] for text in own) for gold, own in needed.items()})

    def _compare(self, pairs: Sequence[Pair]) -> dict[Pair, Verdict]:
        cases = [_case(*pair) for pair in pairs]
        hard = [i for i, case in enumerate(cases) if case.asked]
        answered = dict(zip(hard, self._pool.compare([cases[i].asked for i in hard]), strict=True))
        return {pair: _verdict(*pair, cases[i], answered.get(i, [])) for i, pair in enumerate(pairs)}

    def _remember(self, verdicts: dict[Pair, Verdict]) -> None:
        for pair, verdict in verdicts.items():
            self._verdicts.pop(pair, None)
            self._verdicts[pair] = verdict
        if len(self._verdicts) > _CACHE_SIZE:  # in one piece: another thread may be reading
            self._verdicts = dict(list(self._verdicts.items())[-_CACHE_SIZE // 2 :])


def _row(prompt: Prompt, gold: str) -> str:
    return f"{prompt.source}: answer {gold[:_SHOWN]!r}"


def _refuse_broken(prompt: Prompt, gold: str) -> None:
    if not gold:
        raise InputError(f"{prompt.source}: no answer; a math row needs a number or a LaTeX expression")
    name = broken_command(gold)
    if name:
        raise InputError(f"{_row(prompt, gold)} has `{name}` without its backslash; mend or drop the row")


def _is_formula(leaf: Leaf) -> bool:
    return leaf.number is None and not leaf.words


def _formula(leaf: Leaf) -> str:
    return leaf.equation or leaf.text


def _settled(gold: str, boxed: str | None) -> Verdict | Pair:
    """The verdict where it needs no algebra, else the pair that may."""
    answer = "" if boxed is None else boxed.strip()
    if not answer:
        return Verdict(reward=0.0, answer=boxed, reason="no \\boxed{} answer")
    if answer == gold:
        return _right(gold, answer)
    if len(answer) > max(_LONGEST_ANSWER, 2 * len(gold)):
        return Verdict(reward=0.0, answer=answer, reason="too long to be compared", vote=answer[:_LONGEST_ANSWER])
    if not PLAIN_NUMBER.fullmatch(gold):
        return gold, answer
    if PLAIN_NUMBER.fullmatch(answer):
        value = Fraction(answer.rstrip("."))
        return _right(gold, answer) if value == Fraction(gold.rstrip(".")) else _wrong(gold, answer, str(value))
    if _unevaluated(answer):
        return Verdict(reward=0.0, answer=answer, reason=f"left unevaluated: {answer[:_SHOWN]}", vote=answer)
    return gold, answer


def _unevaluated(answer: str) -> bool:
    """Whether arithmetic was left to the grader; in `10+20=30` it was not."""
    if not _UNEVALUATED.search(answer):
        return False
    shape = shape_of(answer)
    return not isinstance(shape, Leaf) or shape.number is None


def _right(gold: str, answer: str) -> Verdict:
    return Verdict(reward=1.0, answer=answer, vote=gold)


def _wrong(gold: str, answer: str, vote: str) -> Verdict:
    return Verdict(reward=0.0, answer=answer, reason=f"wrong: expected {gold[:_SHOWN]}", vote=vote)


def _case(gold: str, answer: str) -> _Case:
    shapes = _gold_shape(gold), shape_of(answer)
    return _Case(*shapes, questions(*shapes))


def _verdict(gold: str, answer: str, case: _Case, results: Sequence[Result]) -> Verdict:
    """The verdict on one pair, from what the worker said of its formulas."""
    known = dict(zip(case.asked, results, strict=True))

    def same(one: Leaf, other: Leaf) -> bool:
        asked = question(one, other)
        return asked if isinstance(asked, bool) else asked in known and known[asked][0]

    if same_shape(case.gold, case.answer, same):
        return _right(gold, answer)
    vote = _vote(case.answer, {pair[1]: result[1] for pair, result in known.items()})
    stopped = next((why for _, _, why in results if why), "")
    return Verdict(reward=0.0, answer=answer, reason=stopped, vote=vote) if stopped else _wrong(gold, answer, vote)


def _vote(shape: Shape, spellings: dict[str, str]) -> str:
    """What equal answers share: exact numbers, casefolded words, the worker's spelling, or the tidied text."""
    if isinstance(shape, Leaf):
        if shape.number is not None:
            return str(shape.number) + ("%" if shape.percent else "")
        return shape.words or spellings.get(shape.text) or shape.text
    votes = [_vote(item, spellings) for item in shape.items]
    if shape.kind == "tuple":
        return f"{shape.brackets[0]}{', '.join(votes)}{shape.brackets[1]}"
    return f"{shape.kind}: {', '.join(sorted(votes))}"
