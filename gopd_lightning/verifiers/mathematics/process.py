r"""The process that compares formulas with math-verify. Run by path; nothing of gopd is imported.

It may take any time and memory over one pair: whoever asks kills it at a deadline, and its memory is limited.
Numbers are compared here, exactly or to a hundred digits, because math-verify rounds; all else is math-verify's.
"""

import json
import logging
import math
import os
import re
import struct
import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, BinaryIO

import sympy  # type: ignore[import-untyped]
from latex2sympy2_extended import NormalizationConfig, latex2sympy  # type: ignore[import-untyped]
from latex2sympy2_extended.latex2sympy2 import ConversionConfig  # type: ignore[import-untyped]
from math_verify import verify
from math_verify.grader import should_treat_as_complex

_MEMORY_BYTES = 2 << 30
_MOST_DIGITS = 20_000.0  # numbers longer than this are not multiplied out
_DEEPEST = 40
_NORMAL = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
# As it comes, `2(3)` is the mixed number 5, and R^2 - r^2 is 0.
_CONVERSION = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)
_SIDE_BY_SIDE = re.compile(r"(?<![_^\d.])(?<!\\frac )(?<!\\frac)\d+ +\d")  # math-verify adds them: a mixed number
_UNFINISHED = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative)
_POINTS = tuple(sympy.Rational(n, 7919) for n in (5003, 12007, 28001, 6007, 17011, 9001, 31013, 4001))


class TooLarge(Exception):
    """A number has more digits than anyone will compare."""


@lru_cache(maxsize=4096)
def parse(text: str) -> Any:
    """A formula as a sympy object.

    Args:
        text: LaTeX of one value.

    Raises:
        Exception: It is not mathematics.
    """
    if _SIDE_BY_SIDE.search(text):
        raise ValueError("two numbers side by side")
    if _depth(text) > _DEEPEST:
        raise ValueError("nested too deeply")  # the parser's time doubles with every few brackets
    found = latex2sympy(
        text,
        is_real=not should_treat_as_complex(text),
        normalization_config=_NORMAL,
        conversion_config=_CONVERSION,
    )
    if not isinstance(found, sympy.Basic | sympy.MatrixBase):
        raise ValueError("no formula")
    units = {symbol: sympy.I for symbol in _symbols(found) if symbol.name in ("i", "imath")}
    return found.xreplace(units) if units else found


def _depth(text: str) -> int:
    steps = ((letter in "([{") - (letter in ")]}") for letter in text)
    return max(accumulate(steps), default=0)


def _symbols(formula: Any) -> set[Any]:
    return {symbol for symbol in getattr(formula, "free_symbols", set()) if isinstance(symbol, sympy.Symbol)}


def compare(gold: str, answer: str) -> tuple[bool, str, str]:
    """Whether two formulas are equal.

    Args:
        gold: LaTeX of the ground truth.
        answer: LaTeX of the answer.

    Returns:
        The verdict, one spelling for all formulas that equal the answer ("" if there is none), and why they were
        not compared ("" if they were).
    """
    spelling = ""
    try:
        read = parse(answer)
        size(read)
        spelling = canonical(read)
        return equal(parse(gold), read), spelling, ""
    except MemoryError:
        raise  # a process that ran out of memory is not to be trusted any further
    except TooLarge:
        return False, spelling, "not compared: too many digits"
    except Exception:
        return False, spelling, ""


def equal(gold: Any, answer: Any) -> bool:
    """Whether two parsed formulas are equal.

    Args:
        gold: The ground truth.
        answer: The answer.

    Raises:
        TooLarge: One of them would be a number of very many digits.
    """
    size(gold)
    if _is_number(gold) and _is_number(answer):
        return _equal_numbers(gold, answer)
    if _differ_at_points(gold, answer):
        return False
    return bool(
        verify(gold, answer, numeric_precision=50, strict=True, allow_set_relation_comp=True, timeout_seconds=None)
    )


def size(formula: Any) -> float:
    """Roughly how many digits a formula has when all its powers and factorials are multiplied out.

    Args:
        formula: A sympy object.

    Raises:
        TooLarge: More than `_MOST_DIGITS`.
    """
    digits = _digits(formula)
    if not digits <= _MOST_DIGITS:
        raise TooLarge
    return digits


def _digits(formula: Any) -> float:
    if isinstance(formula, sympy.Rational):
        return math.log10(max(abs(int(formula.p)), int(formula.q), 2))
    parts: list[float] = [size(part) for part in getattr(formula, "args", ()) if isinstance(part, sympy.Basic)]
    if isinstance(formula, sympy.Pow | sympy.exp):
        base, exponent = (parts[0], parts[1]) if len(parts) == 2 else (0.5, parts[0])
        root = isinstance(formula.exp, sympy.Rational) and abs(formula.exp) < 1
        return base if root else float(base * 10.0 ** min(exponent, 300))
    if isinstance(formula, sympy.factorial | sympy.factorial2 | sympy.gamma):
        return float((parts[0] + 0.3) * 10.0 ** min(parts[0], 300))
    if isinstance(formula, sympy.Mul):
        return sum(parts)
    return max(parts, default=0.3) + (0.3 * len(parts) if isinstance(formula, sympy.Add) else 0)


def _is_number(formula: Any) -> bool:
    if not isinstance(formula, sympy.Expr) or formula.free_symbols or formula.has(*_UNFINISHED):
        return False
    return not formula.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan)


def _equal_numbers(gold: Any, answer: Any) -> bool:
    left, right = gold.doit(), answer.doit()
    if left.is_Rational and right.is_Rational:
        return bool(left == right)
    return left == right or _is_zero(left - right, left)


def _is_zero(difference: Any, scale: Any) -> bool:
    value = difference.evalf(20, maxn=400)
    if not value.is_number or not all(part.is_Float or part.is_Rational for part in value.as_real_imag()):
        return bool(sympy.simplify(difference) == 0)
    limit = sympy.Float(10) ** -100 * (1 + abs(scale.evalf(20)))
    return bool(abs(value) < limit)


def _differ_at_points(gold: Any, answer: Any) -> bool:
    """Whether two terms have different values at a point: quick, and strict where math-verify drops what is small."""
    if not isinstance(gold, sympy.Expr) or not isinstance(answer, sympy.Expr):
        return False
    symbols = sorted(_symbols(gold) | _symbols(answer), key=str)
    if not symbols or len(symbols) > len(_POINTS):
        return False
    at = dict(zip(symbols, _POINTS, strict=False))
    values = [formula.subs(at) for formula in (gold, answer)]
    if not all(map(_is_number, values)):
        return False
    left, right = (value.evalf(40) for value in values)
    return bool(left.is_number and right.is_number and abs(left - right) > abs(left) * sympy.Float(10) ** -20)


def canonical(formula: Any) -> str:
    """One spelling for equal formulas: p/q, twelve digits of another number, else sympy's.

    Args:
        formula: A sympy object.
    """
    if not _is_number(formula):
        return str(formula)[:200]
    value = formula.doit()
    return str(value)[:200] if value.is_Rational else str(value.evalf(12))[:200]


def answer_to(message: dict[str, Any]) -> dict[str, Any]:
    """Do what a message asks: {"pairs": [[gold, answer], ...]} or {"parse": [text, ...]}.

    Args:
        message: The message.

    Returns:
        {"results": ...}: a triple of `compare` a pair, or whether each text is mathematics.
    """
    if "parse" in message:
        return {"results": [_parses(text) for text in message["parse"]]}
    return {"results": [compare(*pair) for pair in message["pairs"]]}


def _parses(text: str) -> bool:
    try:
        parse(text)
    except Exception:
        return False
    return True


def _limit_memory() -> None:
    if sys.platform != "linux":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        sys.exit()
    return data


def main(warm: Sequence[str] = (r"\frac{-1+\sqrt{17}}{2}", r"2^{3}x+\pi", r"\log_{2} 8-\sin x", "x>1")) -> None:
    """Answer messages until stdin ends.

    Args:
        warm: Formulas that are read before the first message: the parser is slow at first.
    """
    logging.disable(logging.CRITICAL)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not end up among the frames
    _limit_memory()
    for text in warm:
        compare(text, text)
    reply: dict[str, Any] = {"ready": True}
    while True:
        body = json.dumps(reply).encode()
        replies.write(struct.pack(">I", len(body)) + body)
        replies.flush()
        reply = answer_to(json.loads(_read(sys.stdin.buffer, struct.unpack(">I", _read(sys.stdin.buffer, 4))[0])))


if __name__ == "__main__":
    main()
