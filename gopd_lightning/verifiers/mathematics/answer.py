r"""Answers in mathematics as text: what stands in the last box, tidied, and simple numbers read exactly.

Text only, in linear time, and nothing of the grader: what needs algebra goes to `process`.
"""

import re
from fractions import Fraction

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])")
_DIGITS = r"\d{1,200}"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d{{0,200}})?|\.{_DIGITS})"
PLAIN_NUMBER = re.compile(rf"[+-]?{_DECIMAL}")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3}){1,60}(?:\.\d{1,200})?")
_QUOTIENT = re.compile(rf"([+-]?)\(?([+-]?{_DECIMAL})\)?/\(?({_DECIMAL})\)?")
_FRACTION = re.compile(rf"([+-]?)({_DIGITS})?\\frac(?:\{{([+-]?{_DECIMAL})\}}|(\d))(?:\{{([+-]?{_DECIMAL})\}}|(\d))")
_REPEATING = re.compile(r"([+-]?)(\d{1,60})\.(\d{0,60})(?:\\overline\{(\d{1,60})\}|\\dot\{(\d)\})")
_SCIENTIFIC = re.compile(rf"([+-]?{_DECIMAL})(?:\\times|\\cdot|\*)10\^(?:\{{([+-]?\d{{1,3}})\}}|(\d))")
_ONE_TOKEN = re.compile(
    rf"[+-]?(?:{_DIGITS}(?:\.{_DIGITS})?|\.{_DIGITS})(?:/{_DIGITS})?|\$[^$]{{1,400}}\$|[A-Za-z]|-?\\(?:[dtc]?frac|sqrt)(?![A-Za-z])\s*|-?\\[A-Za-z]+"
)
_SPACE = re.compile(r"\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_MACROS = (
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\(?:m?left|m?right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?"), ""),
    (re.compile(r"\\(?:display|text|script)style(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:math(?:rm|bf|it|sf)|text(?:rm|bf|it|sf|tt|normal)|[mh]box)(?=\s*\{)"), r"\\text"),
    (re.compile(r"\\text\s*\{([a-z])\}"), r"\1"),
    (re.compile(r"(?<![\d.])\d{1,3}(?:(?:\{,\}|,?\\[,!;:]|\\? |~)\d{3})+(?!\d)"), None),
    (re.compile(r"\\(?:[,;:!> ]|q?quad(?![A-Za-z]))|~"), " "),
    (re.compile(r"\\(?:degrees?|deg)(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}"), r"^\\circ"),
    (re.compile(r"\\(?:l|lv)?brace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\langle(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"\\lbrack(?![A-Za-z])"), "["),
    (re.compile(r"\\rbrack(?![A-Za-z])"), "]"),
    (re.compile(r"\\[()\[\]]|\\?\$"), ""),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}"), r"\\emptyset"),
)
_SIGNS = {
    **dict.fromkeys("−–—", "-"),
    **dict.fromkeys("·⋅", r"\cdot "),
    **{"×": r"\times ", "÷": "/", "π": r"\pi ", "∞": r"\infty ", "±": r"\pm ", "°": r"^\circ", "∪": r"\cup "},
    **{"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∈": r"\in ", "√": r"\sqrt ", "\u00a0": " ", "\u2009": " "},
    **{"½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "∅": r"\emptyset "},
}
_TRANSLATION = str.maketrans(_SIGNS)


def extract_boxed(text: str) -> str | None:
    r"""The answer in the last \boxed, \fbox or \framebox of a text.

    Args:
        text: A response.

    Returns:
        What stands between the box's braces, nested ones included. Without braces it is the one number, letter or
        command that follows, a fraction or root with its arguments (`\boxed 5`, `\boxed\frac12`). A box that is
        not closed falls back to the one before it; None when there is none.
    """
    boxes = list(_BOX.finditer(text))
    closings = _closings(text) if boxes else {}
    for box in reversed(boxes):
        start = _SPACE.match(text, box.end()).end()  # type: ignore[union-attr]
        inside = text[start + 1 : closings[start]] if start in closings else _unbraced(text, start, closings)
        if inside is not None:
            return inside
    return None


def _closings(text: str) -> dict[int, int]:
    """Where every brace that is closed is closed; in one pass, because a text may open thousands."""
    opened: list[int] = []
    closed: dict[int, int] = {}
    for brace in _BRACE.finditer(text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif brace[0] == "}" and opened:
            closed[opened.pop()] = brace.start()
    return closed


def _unbraced(text: str, start: int, closings: dict[int, int]) -> str | None:
    token = _ONE_TOKEN.match(text, start)
    if token is None:
        return None
    end = token.end()
    for _ in range({"frac": 2, "sqrt": 1}.get(token[0].strip()[-4:], 0)):
        if end >= len(text) or (text[end] == "{" and end not in closings):
            return None
        end = closings.get(end, end) + 1
    return text[start:end]


def tidy(text: str) -> str:
    r"""One spelling for what only looks different: \dfrac, \left, thin spaces, dollar signs, a final full stop.

    Args:
        text: An answer.

    Returns:
        LaTeX that means the same.
    """
    if PLAIN_NUMBER.fullmatch(text):
        return text.rstrip(".")
    text = " ".join(_only_formula(text.strip()).translate(_TRANSLATION).split())
    if "\\begin" not in text:  # there, a double backslash ends a line
        text = text.replace(r"\\", "\\")
    for pattern, replacement in _MACROS:
        text = pattern.sub(_joined if replacement is None else replacement, text)
    text = text.strip().rstrip(".,;:").strip()
    while text[:1] == "{" and _closings(text).get(0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _only_formula(text: str) -> str:
    """The formula of `The answer is $5$`; a text with none or several is left as it is."""
    parts = text.split("$")
    return parts[1] if len(parts) == 3 and parts[1].strip() and not re.search(r"[\d\\]", parts[0] + parts[2]) else text


def _joined(number: re.Match[str]) -> str:
    return re.sub(r"\D", "", number[0])


def number_of(text: str) -> Fraction | None:
    r"""The exact value of a simple number: 12, -0.5, 1,000, 1/2, \frac12, 1\frac12, 0.\overline{3}, 2\times10^{3}.

    Args:
        text: Tidied LaTeX.

    Returns:
        Its value; None where it is anything else.
    """
    text = text.replace(" ", "") if "\\" in text or "/" in text else text.strip()
    if PLAIN_NUMBER.fullmatch(text):
        return Fraction(text.rstrip("."))
    if _THOUSANDS.fullmatch(text):
        return Fraction(text.replace(",", ""))
    for pattern, value in _READERS:
        found = pattern.fullmatch(text)
        if found:
            return value(found)
    return None


def _quotient(found: re.Match[str]) -> Fraction | None:
    sign, top, bottom = found.groups()
    return _ratio(sign, top, bottom)


def _fraction(found: re.Match[str]) -> Fraction | None:
    sign, whole, top, top_digit, bottom, bottom_digit = found.groups()
    part = _ratio("", top or top_digit, bottom or bottom_digit)
    if part is None or (whole and part < 0):
        return None
    return (part + int(whole or 0)) * (-1 if sign == "-" else 1)


def _repeating(found: re.Match[str]) -> Fraction:
    sign, whole, fixed, cycle, digit = found.groups()
    cycle = cycle or digit
    value = Fraction(int(whole + fixed)) + Fraction(int(cycle), 10 ** len(cycle) - 1)
    return value * Fraction(f"{sign}1e-{len(fixed)}")


def _scientific(found: re.Match[str]) -> Fraction:
    factor, power, digit = found.groups()
    return Fraction(factor.rstrip(".")) * Fraction(f"1e{power or digit}")


def _ratio(sign: str, top: str, bottom: str) -> Fraction | None:
    divisor = Fraction(bottom.rstrip("."))
    return Fraction(top.rstrip(".")) / divisor * (-1 if sign == "-" else 1) if divisor else None


_READERS = ((_QUOTIENT, _quotient), (_FRACTION, _fraction), (_REPEATING, _repeating), (_SCIENTIFIC, _scientific))
_DECIMAL_INSIDE = re.compile(rf"(?<![\d.])({_DIGITS})\.({_DIGITS})(?![\d.])|(?<![\d.\w])\.({_DIGITS})(?![\d.])")
_MIXED_INSIDE = re.compile(rf"(?<![\d.}}])({_DIGITS})\s*(\\frac\s*(?:\{{{_DIGITS}\}}|\d)\s*(?:\{{{_DIGITS}\}}|\d))")
_TIMES_BRACKET = re.compile(r"((?<![\w^_.])\d+|\))\s*\(")  # math-verify reads 2(3) as the mixed number 5
_THOUSANDS_INSIDE = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def exact_latex(text: str) -> str:
    """A formula for the worker: decimals as fractions, because rounding is no equality; mixed numbers, products plain.

    Args:
        text: Tidied LaTeX of one value, without a list's commas.
    """
    text = _MIXED_INSIDE.sub(r"(\1+\2)", text)
    text = _DECIMAL_INSIDE.sub(_as_fraction, text)
    text = _TIMES_BRACKET.sub(r"\1\\cdot(", text)
    return text if "(" in text else _THOUSANDS_INSIDE.sub("", text)


def _as_fraction(found: re.Match[str]) -> str:
    digits = found[2] or found[3]
    return rf"(\frac{{{int((found[1] or '') + digits)}}}{{{10 ** len(digits)}}})"
