"""Types that JSON does not keep: arguments become tuples, sets and complex numbers again, as an example call has them.

EvalPlus's files hold the inputs of MBPP+ as JSON, where a tuple is a list. Every problem brings calls with literal
arguments, which show what each argument is made of.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_CONTAINERS = (list, tuple, set, frozenset, dict)


@dataclass
class _Shape:
    """What was seen of one argument: types of containers by depth, and types of what is in them."""

    by_depth: dict[int, set[type]] = field(default_factory=dict)
    leaves: set[type] = field(default_factory=set)

    def look(self, value: Any, depth: int = 0) -> None:
        if not isinstance(value, _CONTAINERS):
            self.leaves.add(type(value))
            return
        self.by_depth.setdefault(depth, set()).add(type(value))
        for item in value.values() if isinstance(value, dict) else value:
            self.look(item, depth + 1)

    def kinds(self, depth: int) -> set[type]:
        """Types of containers at a depth; deeper than nested examples go, that of all depths if it is one."""
        if depth in self.by_depth:
            return self.by_depth[depth]
        everywhere = set().union(*self.by_depth.values())
        return everywhere if len(everywhere) == 1 and len(self.by_depth) > 1 else set()


def typed_inputs(inputs: Sequence[Sequence[Any]], examples: str, entry_point: str) -> list[list[Any]]:
    """Give JSON arguments the types that a function's example calls show.

    Args:
        inputs: Argument lists, from JSON.
        examples: Python source with calls of the function.
        entry_point: Name of the function.

    Returns:
        The argument lists; an argument that no example call shows as a literal stays as it is.
    """
    shapes = _shapes(examples, entry_point)
    blank = _Shape()
    return [
        [_typed(value, shapes.get(place, blank), 0) for place, value in enumerate(arguments)] for arguments in inputs
    ]


def _shapes(examples: str, entry_point: str) -> dict[int, _Shape]:
    shapes: dict[int, _Shape] = {}
    for node in ast.walk(ast.parse(examples)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point):
            continue
        for place, argument in enumerate(node.args):
            try:
                value = ast.literal_eval(argument)
            except ValueError:
                continue
            shapes.setdefault(place, _Shape()).look(value)
    return shapes


def _typed(value: Any, shape: _Shape, depth: int) -> Any:
    if isinstance(value, list):
        return _container([_typed(item, shape, depth + 1) for item in value], shape.kinds(depth))
    if isinstance(value, dict):
        return {key: _typed(item, shape, depth + 1) for key, item in value.items()}
    if isinstance(value, str) and depth == 0 and shape.leaves and shape.leaves <= {int, float, complex}:
        return _number(value)
    return value


def _container(items: list[Any], kinds: set[type]) -> Any:
    if not items and kinds == {dict, set}:  # both are written {}, and Python reads that as a dict
        return {}
    for kind in (set, frozenset, tuple):
        if kind in kinds and list not in kinds:
            return kind(items)
    return items


def _number(text: str) -> complex | float | str:
    """The number that a text stands for (JSON has no complex ones), or the text."""
    try:
        number = complex(text)
    except ValueError:
        return text
    return number if "j" in text else number.real
