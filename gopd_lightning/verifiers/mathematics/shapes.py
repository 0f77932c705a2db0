r"""The shape of an answer: one value, a list, a set, a tuple or interval, a union; and when two shapes are equal.

Order counts in tuples and intervals only. The ground truth decides: where it is a list (`1, 2`), any brackets will
do; where it is a tuple, a list in the same order will do; an interval needs its own brackets.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from gopd_lightning.verifiers.mathematics.answer import tidy
from gopd_lightning.verifiers.mathematics.leaf import Leaf, leaf_of, needs_relation, question

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,]).*")
_AND = re.compile(r"\s*(?:\\text\s*\{\s*,?\s*(?:and|or|,)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*")
_TOKEN = re.compile(r"\\\{|\\\}|\\[A-Za-z]+|\\.|[()\[\]{},;]", re.DOTALL)
_OPEN, _CLOSE = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")
_BY_CONDITION = re.compile(r"\\mid(?![A-Za-z])|[|:]|\\colon")
_ASSIGNED = re.compile(r"^[A-Za-z](?:_\w)?\s*(?:=|\\in(?![A-Za-z]))\s*(?=[(\[]|\\\{|[^=]*\\cup)")
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Group:
    """Several values.

    Attributes:
        kind: "list" (no brackets), "set" (braces), "tuple" (ordered; an interval is one of two) or "union".
        brackets: Opening and closing bracket of a tuple.
        items: The values.
        text: All of it, tidied.
    """

    kind: str
    brackets: str
    items: "tuple[Shape, ...]"
    text: str


Shape = Leaf | Group
Same = Callable[[Leaf, Leaf], bool]


def shape_of(text: str) -> Shape:
    """Read an answer.

    Args:
        text: An answer, as it stands in the box or in the data.
    """
    return _shape(tidy(text), 0)


def _shape(text: str, depth: int) -> Shape:
    if depth > _DEEPEST or r"\begin" in text:
        return leaf_of(text)
    parts = _parts(text)
    if len(parts) > 1:
        items = [_shape(part, depth + 1) for part in parts]
        return Group("list", "", tuple(item for one in items for item in _flat(one)), text)
    bare = _ASSIGNED.sub("", parts[0] if parts else text)
    sides = _split(bare, (r"\cup",))
    if len(sides) > 1:
        return Group("union", "", tuple(_shape(side, depth + 1) for side in sides), bare)
    return _bracketed(bare, depth) or _plus_minus(bare, depth) or leaf_of(text)


def _flat(shape: Shape) -> Sequence[Shape]:
    return shape.items if isinstance(shape, Group) and shape.kind == "list" else (shape,)


def _parts(text: str) -> list[str]:
    """The members of a list; `1,000` is one number."""
    if _THOUSANDS.fullmatch(text) and "," not in re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text):
        return [text]
    return _split(_AND.sub(",", text), (",", ";"))


def _split(text: str, separators: Sequence[str]) -> list[str]:
    """Split where no bracket is open; a text with brackets that do not match stays whole."""
    level, start, parts = 0, 0, []
    for token in _TOKEN.finditer(text):
        level += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if level < 0:
            return [text]
        if level == 0 and token[0] in separators:
            parts.append(text[start : token.start()].strip())
            start = token.end()
    parts.append(text[start:].strip())
    return [part for part in parts if part] if level == 0 else [text]


def _bracketed(text: str, depth: int) -> Shape | None:
    """A text that one pair of brackets encloses."""
    opening = r"\{" if text.startswith(r"\{") else text[:1]
    closing = r"\}" if text.endswith(r"\}") else text[-1:]
    if opening not in ("(", "[", r"\{") or closing not in (")", "]", r"\}") or not _encloses(text, len(closing)):
        return None
    if (opening == r"\{") != (closing == r"\}"):
        return None
    inner = text[len(opening) : -len(closing)].strip()
    if opening == r"\{":
        if _BY_CONDITION.search(inner):
            return None
        members = [_shape(part, depth + 1) for part in _split(inner, (",", ";"))]
        return Group("set", "", tuple(item for one in members for item in _flat(one)), text)
    parts = _split(inner, (",", ";"))
    if len(parts) > 1:
        return Group("tuple", opening + closing, tuple(_shape(part, depth + 1) for part in parts), text)
    return _shape(inner, depth + 1) if opening + closing == "()" and len(inner) > 1 else None


def _encloses(text: str, closing: int) -> bool:
    level = 0
    for token in _TOKEN.finditer(text):
        level += (token[0] in _OPEN) - (token[0] in _CLOSE)
        if level == 0:
            return token.end() == len(text) and len(text) > closing
    return False


def _plus_minus(text: str, depth: int) -> Shape | None:
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        return None
    signs = (("+", "-"), ("-", "+"))
    both = [re.sub(r"\\mp(?![A-Za-z])", n, re.sub(r"\\pm(?![A-Za-z])", p, text)) for p, n in signs]
    return Group("list", "", tuple(_shape(re.sub(r"(^|=)\s*\+", r"\1", one).strip(), depth + 1) for one in both), text)


def leaves(shape: Shape) -> list[Leaf]:
    """All values of a shape, in order."""
    return [shape] if isinstance(shape, Leaf) else [leaf for item in shape.items for leaf in leaves(item)]


def questions(gold: Shape, answer: Shape) -> list[tuple[str, str]]:
    """What the worker must be asked before `same_shape` can tell: pairs of formulas.

    Args:
        gold: The ground truth.
        answer: The answer.
    """
    pairs = [(_whole(gold), _whole(answer))] if _as_formulas(gold, answer) else []
    pairs += [] if pairs and _kinds(gold, answer) != {"union"} else list(product(leaves(gold), leaves(answer)))
    asked = (question(*pair) for pair in pairs)
    return list(dict.fromkeys(one for one in asked if not isinstance(one, bool)))


def _whole(shape: Shape) -> Leaf:
    return shape if isinstance(shape, Leaf) else Leaf(shape.text)


def _kinds(gold: Shape, answer: Shape) -> set[str]:
    return {shape.kind if isinstance(shape, Group) else "" for shape in (gold, answer)}


def _as_formulas(gold: Shape, answer: Shape) -> bool:
    """Sets that are written in different ways: `x > 3` and an interval, a union and a complement."""
    kinds = _kinds(gold, answer)
    related = any(isinstance(shape, Leaf) and needs_relation(shape) for shape in (gold, answer))
    return "union" in kinds or (related and "tuple" in kinds)


def same_shape(gold: Shape, answer: Shape, same: Same) -> bool:
    """Whether an answer equals the ground truth.

    Args:
        gold: The ground truth.
        answer: The answer.
        same: Whether two values are equal.
    """
    if _as_formulas(gold, answer) and same(_whole(gold), _whole(answer)):
        return True
    if isinstance(gold, Leaf) or isinstance(answer, Leaf):
        return _same_single(gold, answer, same)
    if gold.kind == "tuple":
        return _fits_tuple(gold, answer) and _in_order(gold.items, answer.items, same)
    if gold.kind == "set":
        return answer.kind in ("set", "list") and _members(gold.items, answer.items, same)
    return (gold.kind == "list" or answer.kind == gold.kind) and _any_order(gold.items, answer.items, same)


def _same_single(gold: Shape, answer: Shape, same: Same) -> bool:
    """A value and a value, or the only member of a set."""
    one, other = (_only(shape) for shape in (gold, answer))
    return one is not None and other is not None and same(one, other)


def _only(shape: Shape) -> Leaf | None:
    if isinstance(shape, Leaf):
        return shape
    alone = len(shape.items) == 1 and shape.kind in ("set", "list")
    return _only(shape.items[0]) if alone else None


def _fits_tuple(gold: Group, answer: Group) -> bool:
    if answer.kind == "list":
        return gold.brackets == "()"
    return answer.kind == "tuple" and (len(gold.items) > 2 or gold.brackets == answer.brackets)


def _in_order(gold: Sequence[Shape], answer: Sequence[Shape], same: Same) -> bool:
    return len(gold) == len(answer) and all(same_shape(*pair, same) for pair in zip(gold, answer, strict=True))


def _members(gold: Sequence[Shape], answer: Sequence[Shape], same: Same) -> bool:
    """Sets: every member on one side is on the other."""
    there = all(any(same_shape(one, other, same) for other in answer) for one in gold)
    return there and all(any(same_shape(one, other, same) for one in gold) for other in answer)


def _any_order(gold: Sequence[Shape], answer: Sequence[Shape], same: Same) -> bool:
    left = list(answer)
    for one in gold:
        found = next((other for other in left if same_shape(one, other, same)), None)
        if found is None:
            return False
        left.remove(found)
    return not left
