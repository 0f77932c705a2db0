"""When an output is the expected one."""

import pytest

from gopd_lightning.verifiers.programs.compare import same_json, same_text, same_value, short
from gopd_lightning.verifiers.programs.shapes import typed_inputs

NAN = float("nan")


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("3\nok\n", "3  \n ok", True),
        ("3\r\nok", "3\nok", True),
        ("1.0 2", "1 2.00", True),
        ("YES 1.0", "YES 1", False),
        ("0.3333", "0.33333", False),
        ("50000000000000000", "50000000000000001", False),
        ("1 2", "1 2 3", False),
        ("1\n\n2", "1\n2", False),
        ("", "", True),
        ("yes", "YES", False),
        ("sNaN", "NaN", False),
    ],
)
def test_printed_lines_are_equal_as_text_or_as_decimals(printed, expected, same):
    assert same_text(printed, expected) is same


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        ((1, (2, 3)), [1, [2, 3]], True),
        ({1: "a", None: 2}, {"1": "a", "null": 2}, True),
        (1 - 1e-9, 1.0, True),
        (10**400, 1.5, False),
        (0.6, 0.5, False),
        (4, [4], True),
        ([4], 4, False),
        ({1, 2}, [1, 2], False),
        ("1", 1, False),
        (NAN, 1.0, False),
    ],
)
def test_values_are_compared_as_json(value, expected, same):
    assert same_json(value, expected) is same


@pytest.mark.parametrize(
    ("value", "expected", "atol", "same"),
    [
        (1.0000001, 1.0, 0, True),
        (1.00001, 1.0, 0, False),
        (1.00001, 1.0, 1e-4, True),
        ([1.0, 2.0000001], [1.0, 2.0], 0, True),
        ((1.0, 2.0000001), [1.0, 2.0], 0, False),
        ([1, 2.0000001], [1, 2.0], 0, False),
        ([1, 2.0000001], [1, 2.0], 1e-6, True),
        (2, 2.0, 0, True),
        ((1, 2), [1, 2], 0, False),
        ({1, 2}, {2, 1}, 0, True),
        ("a", "b", 1e-6, False),
        (1e-7j, 0j, 1e-6, True),
        (NAN, NAN, 1e-6, False),
    ],
)
def test_values_of_evalplus_are_equal_or_close(value, expected, atol, same):
    assert same_value(value, expected, atol, [], "f") is same


@pytest.mark.parametrize(
    ("entry_point", "arguments", "expected", "right", "wrong"),
    [
        ("similar_elements", [], (4, 5), [5, 4, 4], (4,)),
        ("check_str", [], object(), True, None),
        ("check_str", [], None, False, "match"),
        ("are_equivalent", [36, 57], False, True, None),
        ("sum_div", [8], 7, 0, 8),
        ("surface_Area", [3, 4], 33, 35, 34),
        ("digit_distance_nums", [100, 2], 1, 3, 2),
        ("find_zero", [[-6, 11, -6, 1]], 1.0, 3.0, 2.5),
    ],
)
def test_ambiguous_problems_of_evalplus_have_rules_of_their_own(entry_point, arguments, expected, right, wrong):
    assert same_value(expected, expected, 0, arguments, entry_point)
    assert same_value(right, expected, 0, arguments, entry_point)
    assert entry_point == "are_equivalent" or not same_value(wrong, expected, 0, arguments, entry_point)


@pytest.mark.parametrize("value", [None, "text", [[1]], 5])
def test_value_of_another_kind_is_no_root_and_no_error(value):
    assert not same_value(value, 1.0, 0, [[-6, 11, -6, 1]], "find_zero")


@pytest.mark.parametrize(
    "value", ["x" * 500, list(range(500)), 10**5000, "a\nb", object()], ids=lambda value: type(value).__name__
)
def test_shown_values_are_one_short_line(value):
    assert len(short(value)) <= 80
    assert "\n" not in short(value)


@pytest.mark.parametrize(
    ("examples", "arguments", "typed"),
    [
        ("assert f((1, 2), [3]) == 1", [[5], [6]], [(5,), [6]]),
        ("assert f([(1, 2)]) == 1", [[[5, 6], [7]]], [[(5, 6), (7,)]]),
        ("assert f((1, (2,))) == 1", [[5, [6, [7, [8]]]]], [(5, (6, (7, (8,))))]),
        ("assert f((1, 2)) == 1", [[5, [6]]], [(5, [6])]),
        ("assert f({'a': (1, 2)}, 3) == 1", [{"b": [5]}, 6], [{"b": (5,)}, 6]),
        ("assert f([{1, 2}, {}]) == 1", [[[1], []]], [[{1}, {}]]),
        ("assert f(0, 1j) == 1", ["-2", "(1+2j)"], [-2.0, 1 + 2j]),
        ("assert f([1]) == 1", [["2", "a"]], [["2", "a"]]),
        ("assert f(x) == 1 and g((1,)) == 1", [[5]], [[5]]),
        ("", [[5]], [[5]]),
    ],
)
def test_arguments_get_the_types_of_example_calls(examples, arguments, typed):
    assert repr(typed_inputs([arguments], examples, "f")) == repr([typed])
