r"""Equality of the last \boxed{...} of a response with a mathematical answer."""

import re
import threading
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt

_BOX = "\\boxed{"
_PLAIN_NUMBER = re.compile(r"[+-]?(?:\d{1,200}(?:\.\d{0,200})?|\.\d{1,200})")
# A sum, difference or `*` product that was left to the grader: `10+20`, `7 * 6`, `)-(`.
_UNEVALUATED = re.compile(r"[\w)}\]]\s*[-+*]\s*[\w({\[\\]")
_LONGEST_ANSWER = 400
_SECONDS = 3


def extract_boxed(text: str) -> str | None:
    r"""Contents of the last \boxed{...} whose braces balance.

    Args:
        text: A response.

    Returns:
        What stands between the braces, nested ones included; None when no box is closed.
    """
    start = text.rfind(_BOX)
    while start >= 0:
        inside = _balanced(text, start + len(_BOX))
        if inside is not None:
            return inside
        start = text.rfind(_BOX, 0, start)
    return None


def _balanced(text: str, start: int) -> str | None:
    depth = 1
    for position in range(start, len(text)):
        escaped = text[position - 1] == "\\"
        if text[position] == "{" and not escaped:
            depth += 1
        elif text[position] == "}" and not escaped:
            depth -= 1
        if depth == 0:
            return text[start:position]
    return None


class MathVerifier:
    r"""Reward 1.0 when the last \boxed{...} equals the answer, else 0.0.

    Equal text and plain numbers are compared directly; all else goes to math-verify. Where the answer is a
    plain number, an arithmetic expression that was left unevaluated (`\boxed{10+20}`) is refused: it would
    let a model earn the reward by copying the question.
    """

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt whose answer is missing or cannot be read.

        Args:
            prompt: A prompt that will be graded.

        Raises:
            InputError: The answer is missing, blank or not mathematics.
        """
        gold = _gold(prompt)
        if not gold:
            raise InputError(f"{prompt.source}: no answer; a math row needs a number or a LaTeX expression")
        if not _PLAIN_NUMBER.fullmatch(gold) and not _parses(gold):
            raise InputError(f"{prompt.source}: answer {gold[:80]!r} is not mathematics; mend or drop the row")

    def verify(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Grade a batch; a response that cannot be read earns 0.0.

        Args:
            prompts: One prompt a response.
            responses: Response texts.

        Returns:
            One reward, 0.0 or 1.0, a response.
        """
        return [_reward(_gold(prompt), text) for prompt, text in zip(prompts, responses, strict=True)]


def _gold(prompt: Prompt) -> str:
    answer = (prompt.answer or "").strip()
    boxed = extract_boxed(answer)
    return answer.strip("$").strip() if boxed is None else boxed.strip()


def _reward(gold: str, response: str) -> float:
    boxed = extract_boxed(response)
    answer = "" if boxed is None else boxed.strip()
    if not answer or not gold:
        return 0.0
    if answer == gold:
        return 1.0
    if len(answer) > _LONGEST_ANSWER:
        return 0.0
    if _PLAIN_NUMBER.fullmatch(gold):
        if _PLAIN_NUMBER.fullmatch(answer):
            return float(Decimal(gold) == Decimal(answer))
        if _UNEVALUATED.search(answer):
            return 0.0
    return float(_equivalent(gold, answer))


def _seconds() -> int | None:
    # math-verify times out by SIGALRM, which only the main thread may set; elsewhere it must run unlimited.
    return _SECONDS if threading.current_thread() is threading.main_thread() else None


def _parse(answer: str) -> list[Any]:
    from math_verify import parse  # slow to import, and most answers never need it

    return list(parse(f"\\boxed{{{answer}}}", parsing_timeout=_seconds()))


def _parses(gold: str) -> bool:
    from math_verify.errors import TimeoutException

    try:
        return any(not isinstance(reading, str) for reading in _parse(gold))
    except (Exception, TimeoutException):
        return False


@lru_cache(maxsize=65536)
def _equivalent(gold: str, answer: str) -> bool:
    from math_verify import verify
    from math_verify.errors import TimeoutException  # a BaseException

    try:
        return bool(verify(_parse(gold), _parse(answer), timeout_seconds=_seconds()))
    except (Exception, TimeoutException):
        return False
