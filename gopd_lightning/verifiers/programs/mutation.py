"""Small mistakes put into a right program, to see that its tests find them."""

import ast
import copy
import random
from collections.abc import Iterator
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),  # codespell:ignore notin
    ast.NotIn: (ast.In,),  # codespell:ignore notin
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add, ast.FloorDiv),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Mult, ast.Div),
    ast.Mod: (ast.FloorDiv, ast.Add),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

Site = tuple[int, str, int | None, ast.AST]  # number of the parent in `ast.walk`, field, place in a list, replacement


def mutants(source: str, entry_point: str, count: int, seed: int) -> list[str]:
    """Programs that differ from a right one by one mistake each.

    Comparisons flipped, constants one off, operators swapped, conditions negated, calls, values and statements dropped,
    drawn at random; the last one is the grossest: the entry point returns None at once.

    Args:
        source: Python source.
        entry_point: The function that tests call.
        count: How many to make.
        seed: Of the choice.

    Returns:
        At most `count` sources, all different, none equal to the given one; all are Python, and some may well be right
        all the same.
    """
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    sites = list(_sites(tree))
    random.Random(seed).shuffle(sites)
    gross = _returns_none(tree, entry_point)
    found: list[str] = []
    for site in sites[: 4 * count]:
        if len(found) >= count - 1:
            break
        candidate = _applied(tree, site)
        if candidate not in seen and candidate != gross:
            seen.add(candidate)
            found.append(candidate)
    return [*found, gross][:count] if gross not in seen else found


def _sites(tree: ast.Module) -> Iterator[Site]:
    """Every place in the bodies of functions where one node can be replaced, with each replacement."""
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, _FUNCTIONS) for node in _body(function)}
    for number, parent in enumerate(ast.walk(tree)):
        if not isinstance(parent, _FUNCTIONS) and id(parent) not in inside:
            continue
        for field, value in ast.iter_fields(parent):
            for place, node in enumerate(value) if isinstance(value, list) else ((None, value),):
                if isinstance(node, ast.AST) and id(node) in inside:
                    yield from ((number, field, place, other) for other in _replacements(node))


def _body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    for statement in function.body:
        if not _is_text(statement):  # a docstring
            yield from ast.walk(statement)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _replacements(node: ast.AST) -> list[ast.AST]:
    """What may stand in a node's place."""
    if isinstance(node, ast.Compare):
        return [_with(node, ops=[other(), *node.ops[1:]]) for other in _COMPARISONS[type(node.ops[0])]]
    if isinstance(node, ast.BinOp | ast.AugAssign):
        return [_with(node, op=other()) for other in _OPERATORS.get(type(node.op), ())] + _dropped(node)
    if isinstance(node, ast.BoolOp):
        return [_with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        return [_with(node, test=ast.UnaryOp(ast.Not(), node.test))]
    if isinstance(node, ast.Return):
        return [_with(node, value=ast.Constant(None))]
    if isinstance(node, ast.Call):
        within = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
        return [one for one in within[:1] if not isinstance(one, ast.Starred)]
    if isinstance(node, ast.Constant):
        return [ast.Constant(other) for other in _other_constants(node.value)]
    return _dropped(node)


def _dropped(node: ast.AST) -> list[ast.AST]:
    statement = isinstance(node, ast.Assign | ast.AugAssign | ast.Expr) and not _is_text(node)
    return [ast.Pass()] if statement else []


def _other_constants(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1]
    if isinstance(value, str):
        return [value[1:]] if value else ["x"]
    return []


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _applied(tree: ast.Module, site: Site) -> str:
    number, field, place, replacement = site
    changed = copy.deepcopy(tree)
    parent = next(node for i, node in enumerate(ast.walk(changed)) if i == number)
    if place is None:
        setattr(parent, field, replacement)
    else:
        getattr(parent, field)[place] = replacement
    return ast.unparse(ast.fix_missing_locations(changed))


def _returns_none(tree: ast.Module, entry_point: str) -> str:
    changed = copy.deepcopy(tree)
    for node in ast.walk(changed):
        if isinstance(node, _FUNCTIONS) and node.name == entry_point:
            node.body = [ast.Return(ast.Constant(None))]
    return ast.unparse(ast.fix_missing_locations(changed))
