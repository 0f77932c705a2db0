"""When a program's output is the expected one: printed text, JSON values, and EvalPlus's rules."""

import contextlib
import math
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

_TOLERANCE = 1e-6
_RELATIVE = 1e-7  # EvalPlus compares with numpy's allclose at rtol=1e-7
_SHOWN = 80

Arguments = Sequence[Any]


def same_text(printed: str, expected: str) -> bool:
    """Whether two texts are equal line by line, white space at both ends of lines and texts aside.

    Lines that differ still count as equal where all their words are equal decimal numbers (LiveCodeBench's rule):
    `1.0 2` is `1 2.00`, `0.3333` is not `0.33333`.

    Args:
        printed: What the program wrote.
        expected: What it should have written.
    """
    first, second = (text.strip().split("\n") for text in (printed, expected))
    return len(first) == len(second) and all(map(_same_line, first, second))


def _same_line(line: str, expected: str) -> bool:
    if line.strip() == expected.strip():
        return True
    words, wanted = line.split(), expected.split()
    if len(words) != len(wanted):
        return False
    try:
        return all(Decimal(word) == Decimal(want) for word, want in zip(words, wanted, strict=True))
    except InvalidOperation:
        return False


def same_json(value: Any, expected: Any) -> bool:
    """Whether a returned value is the expected one of a JSON file.

    A tuple counts as a list, and where one of two numbers is a float they are compared to 1e-6.

    Args:
        value: What a function returned.
        expected: From JSON; data in verl's form may wrap the value in a list of one.
    """
    with contextlib.suppress(TypeError, ValueError, RecursionError, OverflowError):
        wrapped = isinstance(expected, list) and len(expected) == 1
        return _equal(value, expected) or (wrapped and _equal(value, expected[0]))
    return False


def _equal(value: Any, expected: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(_equal, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        named = {_json_key(key): item for key, item in value.items()}
        return named.keys() == expected.keys() and all(_equal(named[key], expected[key]) for key in named)
    if isinstance(value, float) or isinstance(expected, float):
        numbers = all(isinstance(one, int | float) for one in (value, expected))
        return numbers and math.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return bool(value == expected)


def _json_key(key: Any) -> str:
    """The text that a key of a dict becomes in JSON."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return str(key)


def same_value(value: Any, expected: Any, tolerance: float, arguments: Arguments, entry_point: str) -> bool:
    """Whether a returned value is the one of EvalPlus's canonical solution.

    Python's equality decides, then closeness of numbers within `tolerance` (1e-6 when that is 0 and the expected
    value is a float, or a list or tuple of floats alone). Eleven functions of MBPP and one of HumanEval have rules of
    their own (`evalplus/eval/__init__.py` and `_special_oracle.py` of EvalPlus 0.3).

    Args:
        value: What the program returned.
        expected: What the canonical solution returned.
        tolerance: The problem's `atol`.
        arguments: Arguments of the call.
        entry_point: Name of the function.
    """
    with contextlib.suppress(TypeError, ValueError, RecursionError, OverflowError, ArithmeticError):
        if entry_point in _INSTEAD:
            return _INSTEAD[entry_point](value, expected, arguments, tolerance)
        if value == expected:
            return True
        if entry_point in _BESIDE and _BESIDE[entry_point](value, arguments, tolerance):
            return True
        tolerance = tolerance or (_TOLERANCE if _floats(expected) else 0.0)
        return tolerance > 0 and type(value) is type(expected) and _close(value, expected, tolerance)
    return False


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _close(value: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list | tuple):
        both = isinstance(value, list | tuple) and len(value) == len(expected)
        return both and all(_close(*pair, tolerance) for pair in zip(value, expected, strict=True))
    if not all(isinstance(one, int | float | complex) for one in (value, expected)):
        return False
    return bool(value == expected or abs(value - expected) <= tolerance + _RELATIVE * abs(expected))


def _as_sets(value: Any, expected: Any, arguments: Arguments, tolerance: float) -> bool:
    return set(value) == set(expected)


def _found_or_not(value: Any, expected: Any, arguments: Arguments, tolerance: float) -> bool:
    """The canonical solution returns a match object or None: a program may return whether there is one."""
    found = value if isinstance(value, bool) else value is not None
    return bool(found == (expected is not None))


def _root(value: Any, expected: Any, arguments: Arguments, tolerance: float) -> bool:
    """Any root of the polynomial counts; the arguments are its coefficients, the constant one first."""
    terms = (factor * math.pow(value, power) for power, factor in enumerate(arguments[0]))
    return bool(abs(sum(terms)) <= max(tolerance, _TOLERANCE))


def _other_pyramid(value: Any, arguments: Arguments, tolerance: float) -> bool:
    """The problem does not say whether its height is the slanted one; the canonical solution takes it so."""
    base, height = arguments
    slanted = math.hypot(base / 2, height)
    return bool(abs(value - round(base**2 + 2 * base * slanted)) <= tolerance)


def _other_digits(value: Any, arguments: Arguments, tolerance: float) -> bool:
    """Numbers of unequal length may be filled up with zeros; the canonical solution cuts them."""
    first, second = map(str, arguments)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return bool(value == sum(abs(int(one) - int(other)) for one, other in pairs))


def _zero(value: Any, arguments: Arguments, tolerance: float) -> bool:
    return bool(value == 0)


def _anything(value: Any, arguments: Arguments, tolerance: float) -> bool:
    return True


_SETS = "similar_elements find_char_long common_in_nested_lists extract_singly larg_nnum intersection_array"
_INSTEAD: dict[str, Callable[[Any, Any, Arguments, float], bool]] = {
    **dict.fromkeys([*_SETS.split(), "find_dissimilar", "Diff"], _as_sets),
    **dict.fromkeys(["check_str", "text_match_three", "text_starta_endb"], _found_or_not),
    "find_zero": _root,
}
_BESIDE: dict[str, Callable[[Any, Arguments, float], bool]] = {
    "surface_Area": _other_pyramid,
    "digit_distance_nums": _other_digits,
    "sum_div": _zero,
    "are_equivalent": _anything,
}


def short(value: Any) -> str:
    """A value in one line of at most 80 characters, for a reason.

    Args:
        value: Anything that a program returned.
    """
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # an integer of more digits than Python writes
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
