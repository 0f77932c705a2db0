"""All cases run, failures are named, and summary and table say what was found."""

import json

import everything
import pytest
from everything import Case, chosen, report, rows_of, run, run_all
from side_by_side import row

MET = row("X1", "fast", 2.5, "x", ">= 2")
MISSED = row("X1", "small", 0.5, "share", "<= 0.3333")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Scripts, results and the document in a folder of the test's own."""
    monkeypatch.setattr(everything, "HERE", tmp_path)
    monkeypatch.setattr(everything, "RESULTS", tmp_path)
    monkeypatch.setattr(everything, "DOCUMENT", tmp_path / "performance.md")
    monkeypatch.setattr(everything, "REASONS", tmp_path / "reasons.yaml")
    (tmp_path / "reasons.yaml").write_text("X1: {small: the head is kept whole}\n")
    (tmp_path / "performance.md").write_text(
        "before\n<!-- make bench: begin -->\nold\n<!-- make bench: end -->\nafter\n"
    )
    return tmp_path


def script(place, name, text):
    (place / f"{name}.py").write_text(text)
    return Case(name.upper(), name, 0.1)


def writes(place, name, rows):
    file = place / f"{name}.json"
    return script(place, name, f"open({str(file)!r}, 'w').write({json.dumps({'summary': rows})!r})")


def test_a_case_that_fails_is_named_with_its_last_line_and_the_others_go_on(place, capsys):
    cases = [script(place, "x0", "raise ValueError('no weights')"), writes(place, "x1", [MET])]
    assert run_all(cases) == {"X0": "ended with status 1: ValueError: no weights"}
    shown = capsys.readouterr().out
    assert "X0 FAILED" in shown
    assert "X1 (2 of 2) begins" in shown


def test_a_case_that_writes_nothing_fails(place):
    (place / "x1.json").write_text("{}")
    import os

    os.utime(place / "x1.json", (0, 0))  # of an earlier run
    assert run(script(place, "x1", "print('done')"), minutes=1) == "wrote no x1.json"


def test_a_case_that_hangs_is_ended(place):
    assert run(script(place, "x1", "import time; time.sleep(60)"), minutes=0.01) == "took too long and was ended"


def test_a_missed_goal_has_the_reason_that_was_found(place):
    case = writes(place, "x1", [MET, MISSED])
    assert run(case, minutes=1) is None
    rows = rows_of(case, {}, {"X1": {"small": "the head is kept whole"}})
    assert [found.get("reason") for found in rows] == [None, "the head is kept whole"]
    assert rows_of(case, {}, {"X1": {"*": "for all"}})[1]["reason"] == "for all"
    assert rows_of(case, {}, {})[1]["reason"] == "not known yet"


def test_the_report_has_every_case_that_ever_ran_and_those_that_failed(place, monkeypatch):
    ran, lost, never = writes(place, "x1", [MET, MISSED]), script(place, "x2", ""), script(place, "x3", "")
    monkeypatch.setattr(everything, "CASES", (ran, lost, never))
    run(ran, minutes=1)
    rows = report({"X2": "ended with status 1: no weights"})
    assert json.loads((place / "summary.json").read_text()) == rows
    assert [(found["case"], found["met"]) for found in rows] == [("X1", True), ("X1", False), ("X2", False)]
    assert (place / "x1.png").read_bytes().startswith(b"\x89PNG")
    document = (place / "performance.md").read_text()
    assert document.startswith("before\n")
    assert document.endswith("\nafter\n")
    assert "old" not in document
    assert "X1: the head is kept whole" in document


def test_cases_are_chosen_by_name():
    assert [case.name for case in chosen(["S1", "K1"])] == ["S1", "K1"]
    assert chosen([]) == list(everything.CASES)
    with pytest.raises(SystemExit, match="no case K9; known: K1"):
        chosen(["K9"])


def test_all_cases_fit_in_45_minutes_and_have_scripts():
    assert sum(case.minutes for case in everything.CASES) <= 45
    assert [case.script for case in everything.CASES if not (everything.HERE / f"{case.script}.py").exists()] == []
