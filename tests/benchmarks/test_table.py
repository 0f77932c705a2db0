"""Figures with their goals, and the place of the table in a document."""

import pytest
from pictures import share_of_goal
from side_by_side import reaches, row
from table import BEGIN, END, into, markdown


@pytest.mark.parametrize(
    ("figure", "goal", "met"),
    [(3.0, ">= 3", True), (2.99, ">= 3", False), (0.33, "<= 0.3333", True), (0.34, "<= 0.3333", False)],
)
def test_a_goal_is_met_at_its_limit(figure, goal, met):
    assert row("E1", "what", figure, "x", goal)["met"] is met


def test_a_goal_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="'>= NUMBER'"):
        reaches(1.0, "3")


def test_figures_are_rounded_and_rows_without_a_goal_are_only_shown():
    found = row("E1", "gopd", 123.456789, "tok/s")
    assert (found["figure"], found["goal"], found["met"]) == (123.5, None, None)


def test_the_table_says_why_goals_are_missed_once_for_each_reason():
    missed = [row("E1", what, 0.5, "share", "<= 0.3333") | {"reason": "because"} for what in ("a", "b")]
    text = markdown([row("K1", "speed", 1.1, "x", "<= 1.15"), *missed, row("E1", "gopd", 1234.5, "tok/s")])
    assert text.splitlines() == [
        "| case | what | figure | goal | met |",
        "|---|---|---|---|---|",
        "| K1 | speed | 1.1 x | at most 1.15 x | yes |",
        "| E1 | a | 50 % | at most 33.3 % | **no** [1] |",
        "| E1 | b | 50 % | at most 33.3 % | **no** [1] |",
        "| E1 | gopd | 1,234 tok/s |  |  |",
        "",
        "Goals that are not met:",
        "",
        "1. E1: because",
    ]


def test_only_what_stands_between_the_marks_is_replaced():
    document = f"a\n{BEGIN}\nold\n{END}\nb\n"
    assert into(document, "new\n") == f"a\n{BEGIN}\nnew\n{END}\nb\n"
    assert into(into(document, "x\n"), "new\n") == into(document, "new\n")


@pytest.mark.parametrize("document", ["a", f"{BEGIN}", f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"])
def test_a_document_without_its_marks_is_left_alone(document):
    with pytest.raises(ValueError, match="the document needs one line"):
        into(document, "new")


def test_a_picture_shows_1_where_a_goal_is_just_met():
    assert share_of_goal(row("E1", "a", 6.0, "x", ">= 3")) == 2.0
    assert share_of_goal(row("E1", "a", 0.5, "share", "<= 0.25")) == 0.5
