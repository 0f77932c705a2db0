"""Mutants: different, Python, reproducible, and mostly wrong."""

import ast

import pytest

from gopd_lightning.verifiers.programs.mutation import mutants

SOURCE = '''def f(xs):
    """Sum of the positive ones: f([1]) == 1."""
    total = 0
    for x in xs:
        if x > 0 and not x == 7:
            total += x * 1
    return total
'''


@pytest.mark.parametrize(
    "source", [SOURCE, "def f(a, b):\n return zip(*a) if b else f'{a!r:>3}'", "def f(a): return a"]
)
def test_mutants_are_python_and_differ_from_the_source_and_each_other(source):
    made = mutants(source, "f", 12, 0)
    assert made
    assert len({ast.dump(ast.parse(one)) for one in [source, *made]}) == len(made) + 1


def test_same_seed_same_mutants_and_another_seed_others():
    assert mutants(SOURCE, "f", 8, 1) == mutants(SOURCE, "f", 8, 1)
    assert mutants(SOURCE, "f", 8, 1) != mutants(SOURCE, "f", 8, 2)


def test_last_mutant_returns_none_at_once():
    assert mutants(SOURCE, "f", 5, 0)[-1] == "def f(xs):\n    return None"
    assert len(mutants(SOURCE, "f", 1, 0)) == 1


def test_docstrings_and_signatures_stay():
    for one in mutants(SOURCE, "f", 100, 0)[:-1]:
        assert '"""Sum of the positive ones: f([1]) == 1."""' in one
        assert one.startswith("def f(xs):")


def test_every_kind_of_mistake_is_made():
    made = "\n".join(mutants(SOURCE, "f", 100, 0))
    for mistake in (
        "x >= 0",
        "or",
        "x != 7",
        "total = 1",
        "total -= x",
        "x + 1",
        "x * 2",
        "return None",
        "pass",
        "not (",
    ):
        assert mistake in made


def test_source_that_returns_none_anyway_has_no_gross_mutant():
    assert mutants("def f(x):\n    return None", "f", 3, 0) == []
