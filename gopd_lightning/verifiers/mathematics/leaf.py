r"""One value of an answer: its number, words, unit, percent sign and the name before `=`; and when two are equal."""

import re
from dataclasses import dataclass
from fractions import Fraction

from gopd_lightning.verifiers.mathematics.answer import PLAIN_NUMBER, exact_latex, number_of

_NAME = re.compile(
    r"(?:\\?[A-Za-z]+|\\text\s*\{[^{}]*\})(?:_(?:\w|\{[^{}]*\})|')*(?:\([A-Za-z0-9, ]*\))?|\|[A-Z]+\||[A-Z]{1,4}"
)
_EQUALS = re.compile(r"(?<![<>!:=\\])=(?!=)|:=|\\in(?![A-Za-z])")
_RELATION = re.compile(r"[<>]|\\(?:leq?|geq?|lt|gt|ne|neq|leqslant|geqslant|equiv|mid)(?![A-Za-z])")
_TRAILING_TEXT = re.compile(r"(?<=[\w})\]!%])\s*\\text\s*\{([^{}]*)\}\s*(\^\s*(?:\d|\{\d\}))?$")
_LEADING_TEXT = re.compile(r"^\\text\s*\{[^{}]*\}\s*[:=]?\s*(?=[\w\\({\[+.-])")
_BARE_UNIT = re.compile(r"(?<=[\d})])\s*([A-Za-z]{2,}(?: [A-Za-z]+)*)\s*(\^\s*(?:\d|\{\d\}))?$")
# One letter may be a variable: only behind a plain number and a space is it a unit.
_LETTER_UNIT = re.compile(r"(?<=[\d.]) +([mgslhL])\s*(\^\s*(?:\d|\{\d\}))?$")
_DEGREES = re.compile(r"\s*\^\s*\\circ(?![A-Za-z])\s*[CF]?$")
_BASE = re.compile(r"(?<=[\dA-Fa-f])_\s*(?:\{(?:\\text\s*\{)?(\w{1,8})\}?\}|(\d))$")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_](?:[^\W_]|[ '’.,!?-])*")
_CLOCK = re.compile(r"\d{1,2}:[0-5]\d(?::[0-5]\d)?(?: ?[ap]\.?m)?", re.IGNORECASE)
_CHOICE = re.compile(r"(?:\\text\s*\{)?\s*\(?\s*([A-Za-z])\s*(?:\)|\}?\s*[.):])\s*\}?\s*\S")
_UNIT_PATTERNS = (
    (_DEGREES, "degree"),
    (_TRAILING_TEXT, "text"),
    (_BASE, "base"),
    (_LETTER_UNIT, "letter"),
    (_BARE_UNIT, "bare"),
)
_SHORT_WORD = 3
_UNITS = {
    alias: names.split()[0]
    for names in (
        "m meter meters metre metres",
        "cm centimeter centimeters centimetre centimetres",
        "mm millimeter millimeters millimetre millimetres",
        "km kilometer kilometers kilometre kilometres",
        "in inch inches",
        "ft foot feet",
        "yd yard yards",
        "mi mile miles",
        "g gram grams",
        "kg kilogram kilograms",
        "mg milligram milligrams",
        "lb lbs pound pounds",
        "l L liter liters litre litres",
        "ml mL milliliter milliliters millilitre millilitres",
        "s sec second seconds",
        "min minute minutes mins",
        "h hr hrs hour hours",
        "day days",
        "week weeks",
        "month months",
        "year years yr yrs",
        "dollar dollars usd USD",
        "cent cents",
        "degree degrees deg",
        "rad radian radians",
        "mph",
        "kmh kph",
        "unit units",
    )
    for alias in names.split()
}


@dataclass(frozen=True, slots=True)
class Leaf:
    r"""One value.

    Attributes:
        text: LaTeX of the value alone, as the worker reads it.
        number: Its exact value where it is a simple number.
        words: Casefolded words where it is (or may be) text.
        plain: The words stand in no \text and are short: they may be a product of variables too.
        name: What the answer calls it (`x` of `x = 5`).
        equation: The whole equation, where there was one.
        unit: Unit in its shortest form, with its power; "base 2" for a numeral's base.
        percent: It had a percent sign.
        choice: The casefolded letter that it begins with: `(A) 5`.
    """

    text: str
    number: Fraction | None = None
    words: str = ""
    plain: bool = False
    name: str = ""
    equation: str = ""
    unit: str = ""
    percent: bool = False
    choice: str = ""

    @property
    def algebra(self) -> bool:
        """Whether the worker can read it: it is not just words."""
        return not self.words or self.plain


def leaf_of(text: str) -> Leaf:
    """Read one value.

    Args:
        text: Tidied LaTeX without top-level commas.
    """
    name, value, equation = _named(text)
    begins = _CHOICE.match(text)
    choice = begins[1].casefold() if begins else ""
    words = _words(value)
    if words or equation and not name:
        return Leaf(exact_latex(value), None, words, _is_plain(value), name, exact_latex(equation), choice=choice)
    value, percent = _without_percent(value)
    value, unit = _without_unit(value)
    exact = exact_latex(value)
    words, plain, equation = _words(value), _is_plain(value), exact_latex(equation)
    return Leaf(exact, number_of(value), words, plain, name, equation, unit, percent, choice)


def _named(text: str) -> tuple[str, str, str]:
    """Split `x = 2 + 3 = 5` into its name, its last value and all of it; sums of numbers need no name."""
    parts = [part.strip() for part in _EQUALS.split(text)]
    if len(parts) == 1 or not all(parts) or _RELATION.search(text):
        return "", text, ""
    if _NAME.fullmatch(parts[0]):
        return parts[0].replace(" ", ""), parts[-1], text
    if number_of(parts[-1]) is not None and not re.search(r"[A-Za-z]", re.sub(r"\\[a-z]+", "", text)):
        return "", parts[-1], ""
    return "", text, text


def _words(text: str) -> str:
    r"""Text answers, casefolded: Monday, \text{no solution}, (A), 12:30; "" for anything else."""
    if re.search(r"[\d\\]", _TEXT.sub("", text)) and not _CLOCK.fullmatch(text):
        return ""
    bare = _TEXT.sub(r" \1 ", text).strip()
    if bare[:1] == "(" and bare[-1:] == ")" and len(bare) <= 5:
        bare = bare[1:-1]
    bare = " ".join(bare.split()).strip(" .,()")
    return bare.casefold() if _WORDS.fullmatch(bare) or _CLOCK.fullmatch(bare) else ""


def _is_plain(text: str) -> bool:
    return text.isalpha() and len(text) <= _SHORT_WORD


def _without_percent(text: str) -> tuple[str, bool]:
    bare = re.sub(r"\s*(?:%|\\text\s*\{\s*(?:%|per ?cent|percentage)\s*\}|(?<=[\d}) ])per ?cent)$", "", text)
    return (bare, True) if bare and bare != text else (text, False)


def _without_unit(text: str) -> tuple[str, str]:
    for pattern, kind in _UNIT_PATTERNS:
        found = pattern.search(text)
        if found is None or not text[: found.start()].strip():
            continue
        if kind == "letter" and not PLAIN_NUMBER.fullmatch(text[: found.start()]):
            continue
        known = kind if kind == "degree" else _unit(found, kind)
        if known:
            return text[: found.start()].strip(), known
    bare = _LEADING_TEXT.sub("", text)
    return (_without_unit(bare)[0], "") if bare != text else (text, "")


def _unit(found: re.Match[str], kind: str) -> str:
    if kind == "base":
        return f"base {found[1] or found[2]}"
    word = " ".join((found[1] or "").split()).strip(".")
    power = re.sub(r"\D", "", found[2] or "")
    known = _UNITS.get(word) or _UNITS.get(word.lower())
    if known:
        return known + power
    sentence = kind == "text" or (len(word) > _SHORT_WORD and found[0].startswith(" "))
    return "?" if sentence else ""


def question(gold: Leaf, answer: Leaf) -> bool | tuple[str, str]:
    """Whether two values are equal, or what the worker must be asked to know.

    Args:
        gold: The ground truth, which decides on names, units and percent signs.
        answer: The answer.

    Returns:
        The verdict, or two formulas that the worker must compare.
    """
    if gold.words or answer.words:
        return _same_words(gold, answer)
    if _other_unit(gold.unit, answer.unit):
        return False
    if gold.equation and answer.equation and gold.name != answer.name:
        return gold.equation, answer.equation
    if gold.equation and not gold.name:
        return (gold.equation, answer.equation or answer.text) if answer.equation else False
    if answer.equation and not answer.name:
        return gold.text, answer.equation
    return _same_value(gold, answer)


def _same_value(gold: Leaf, answer: Leaf) -> bool | tuple[str, str]:
    if gold.number is not None and answer.number is not None:
        return _same_number(gold.number, answer.number, gold.percent, answer.percent)
    return gold.text.replace(" ", "") == answer.text.replace(" ", "") or (gold.text, answer.text)


def _same_number(gold: Fraction, answer: Fraction, gold_percent: bool, answer_percent: bool) -> bool:
    """A percent sign is a unit or a factor: 50% is 50 and 0.5. A share (at most 1) is never read as a percentage."""
    if gold_percent == answer_percent:
        return gold == answer
    if gold_percent:
        return answer in (gold, gold / 100)
    return answer / 100 == gold or (answer == gold and abs(gold) > 1)


def _same_words(gold: Leaf, answer: Leaf) -> bool | tuple[str, str]:
    if gold.words and gold.words == answer.words:
        return True
    if len(gold.words) == 1 and answer.choice == gold.words:
        return True
    return (gold.text, answer.text) if gold.algebra and answer.algebra else False


def _other_unit(gold: str, answer: str) -> bool:
    return bool(gold and answer) and "?" not in (gold, answer) and gold != answer


def needs_relation(leaf: Leaf) -> bool:
    r"""Whether a value is an inequality or a set by its condition: `1 < x`, `\mathbb{R} \setminus \{0\}`."""
    return bool(_RELATION.search(leaf.text)) or r"\mathbb" in leaf.text or r"\setminus" in leaf.text
