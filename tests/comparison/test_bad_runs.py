"""Runs that cannot be compared, and those that can with a warning."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluations import drawn, evaluation, line, read_rows, write_rows
from tiny_command import command

RIGHT, WRONG = [1.0] * 4, [0.0] * 4


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    return (
        evaluation(tmp_path / "a", {"aime": drawn(10, 4, 0.0, 1)}),
        evaluation(tmp_path / "b", {"aime": drawn(10, 4, 0.1, 2)}),
    )


def compared(capsys: Any, *folders: Path, flags: tuple[str, ...] = ()) -> Any:
    return command(capsys, "compare", *map(str, folders), *flags)


def edit(file: Path, change: Callable[[dict[str, Any]], None], ids: tuple[str, ...] | None = None) -> None:
    """Change all rows of a JSONL, or those of some problems."""
    rows = read_rows(file)
    for row in rows:
        if ids is None or row["id"] in ids:
            change(row)
    write_rows(file, rows)


def summary(folder: Path, **changes: Any) -> None:
    file = folder / "summary.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused(found: Any, *parts: str) -> None:
    """One line that names everything, exit code 2, and nothing printed or written."""
    assert (found.code, found.out, len(found.errors)) == (2, "", 1), found
    assert found.errors[0].startswith("gopd: ")
    assert all(part in found.errors[0] for part in parts), found.errors[0]
    assert not list(Path("comparison").glob("*"))


def test_one_run_is_too_few(pair, capsys):
    refused(compared(capsys, pair[0]), "needs two runs or more")
    refused(compared(capsys), "needs two runs or more")


@pytest.mark.parametrize("level", ["0", "1", "95"])
def test_a_level_out_of_range(pair, capsys, level):
    refused(compared(capsys, *pair, flags=("--level", level)), f"--level {level} is out of range")


def test_a_level_that_is_no_number(pair, capsys):
    refused(compared(capsys, *pair, flags=("--level", "high")), "level", "high")


def test_an_unknown_option(pair, capsys):
    refused(compared(capsys, *pair, flags=("--levle", "0.9")), "--levle is not an option")


def test_an_output_that_is_a_file(pair, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    refused(compared(capsys, *pair, flags=("--out", "taken")), "--out taken cannot be a folder")


def test_a_folder_without_an_evaluation(pair, tmp_path, capsys):
    refused(compared(capsys, pair[0], tmp_path / "nowhere"), "nowhere is not an evaluation", "gopd test")


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "is not JSON"), ("[]", "no `sets`"), ("{}", "no `sets`"), ('{"sets": {"aime": {}}}', "no `sets`")],
)
def test_a_broken_summary(pair, capsys, content, says):
    (pair[1] / "summary.json").write_text(content)
    refused(compared(capsys, *pair), str(pair[1] / "summary.json"), says)


def test_a_missing_file(pair, capsys):
    (pair[1] / "aime.jsonl").unlink()
    refused(compared(capsys, *pair), f"there is no {pair[1] / 'aime.jsonl'}")


def test_a_line_that_is_not_json(pair, capsys):
    with (pair[1] / "aime.jsonl").open("a") as file:
        file.write('{"id": "aime-3", "sam')
    refused(compared(capsys, *pair), "aime.jsonl, line 41 is not JSON")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("id", None, "has no id"),
        ("sample", None, "has no sample"),
        ("reward", None, "has no reward"),
        ("sample", "first", "sample is 'first'"),
        ("sample", -1, "sample is -1"),
        ("reward", 1.5, "reward is 1.5"),
        ("reward", "right", "reward is 'right'"),
        ("reward", float("nan"), "reward is nan"),
    ],
)
def test_a_row_that_cannot_be_counted(pair, capsys, key, value, says):
    rows = read_rows(pair[1] / "aime.jsonl")
    rows[6][key] = value
    write_rows(pair[1] / "aime.jsonl", rows)
    refused(compared(capsys, *pair), "aime.jsonl, line 7", says)


def test_a_sample_twice(pair, capsys):
    write_rows(pair[1] / "aime.jsonl", [*read_rows(pair[1] / "aime.jsonl"), line("aime", 2, 3, 1.0)])
    refused(compared(capsys, *pair), "line 41: sample 3 of problem aime-2 is there twice")


def test_no_first_sample(pair, capsys):
    rows = [row for row in read_rows(pair[1] / "aime.jsonl") if (row["id"], row["sample"]) != ("aime-4", 0)]
    write_rows(pair[1] / "aime.jsonl", rows)
    refused(compared(capsys, *pair), "problem aime-4 has no sample 0")


def test_a_file_that_is_not_the_summarys(pair, capsys):
    write_rows(pair[1] / "aime.jsonl", read_rows(pair[1] / "aime.jsonl")[:36])
    refused(compared(capsys, *pair), "has 9 problems, summary.json says 10")


@pytest.mark.parametrize("template", ["{}", "<user>{}<assistant>"])
def test_other_problems_under_the_same_ids(pair, capsys, template):
    question = template.format("How many {} are there?")
    edit(pair[1] / "aime.jsonl", lambda row: row.update(prompt=question.format(row["id"][-1] * 3)))
    refused(compared(capsys, *pair), "aime: ", "not about the same problems", "10 of 10 ids", "aime-0")


def test_runs_without_a_common_set(pair, tmp_path, capsys):
    other = evaluation(tmp_path / "c", {"code": [RIGHT, WRONG]})
    refused(compared(capsys, pair[0], other), "no data set in common")


def test_a_single_problem(tmp_path, capsys):
    folders = [evaluation(tmp_path / name, {"aime": [RIGHT]}) for name in "ab"]
    refused(compared(capsys, *folders), "with two problems or more")


# Warnings


def warned(found: Any) -> str:
    """The only warning of a comparison that was made."""
    assert found.code == 0, found
    assert len(found.errors) == 1, found.errors
    assert found.errors[0].removeprefix("gopd: ") in Path("comparison/comparison.md").read_text()
    return found.errors[0]


def test_a_set_that_only_one_run_has(tmp_path, capsys):
    a = evaluation(tmp_path / "a", {"aime": [RIGHT, WRONG], "code": [RIGHT, WRONG]})
    b = evaluation(tmp_path / "b", {"aime": [RIGHT, WRONG]})
    found = compared(capsys, a, b)
    assert warned(found) == "gopd: code: left out: b did not answer it"
    assert "all sets" not in found.out


def test_problems_that_only_one_run_has(tmp_path, capsys):
    a, b = (evaluation(tmp_path / name, {"aime": [RIGHT] * size}) for name, size in (("a", 5), ("b", 8)))
    found = compared(capsys, a, b)
    assert warned(found) == "gopd: aime: left out: 3 of 8 problems, which some run did not answer"
    assert "aime (5)" in found.out


def test_a_set_of_one_problem_beside_others(tmp_path, capsys):
    sets = {"aime": [RIGHT, WRONG], "lonely": [RIGHT]}
    found = compared(capsys, *(evaluation(tmp_path / name, sets) for name in "ab"))
    assert "lonely: left out" in warned(found)


def test_a_few_other_problems(pair, capsys):
    edit(pair[1] / "aime.jsonl", lambda row: row.update(prompt="Prove it."), ids=("aime-3", "aime-7"))
    found = compared(capsys, *pair)
    assert warned(found) == "gopd: aime: left out: 2 of 10 problems, whose ids stand for other prompts: aime-3, aime-7"
    assert "aime (8)" in found.out


def test_another_chat_template(pair, capsys):
    edit(pair[1] / "aime.jsonl", lambda row: row.update(prompt=f"<user>{row['prompt']} Think.<assistant>"))
    found = compared(capsys, *pair)
    assert "aime: b read 10 of 10 problems in another chat template" in warned(found)
    assert "aime (10)" in found.out


def test_another_chat_template_and_another_problem(pair, capsys):
    edit(pair[1] / "aime.jsonl", lambda row: row.update(prompt=f"<user>{row['prompt']} Think.<assistant>"))
    edit(pair[1] / "aime.jsonl", lambda row: row.update(prompt="<user>Prove it. Think.<assistant>"), ids=("aime-3",))
    found = compared(capsys, *pair)
    assert len(found.errors) == 2
    assert "b read 9 of 10 problems" in found.errors[0]
    assert found.errors[1] == "gopd: aime: left out: 1 of 10 problems, whose ids stand for other prompts: aime-3"


def test_other_sampling(pair, capsys):
    summary(pair[1], sampling={"n": 8, "temperature": 0.6, "top_p": 1.0, "max_new_tokens": 64})
    said = warned(compared(capsys, *pair))
    assert said == "gopd: sampling of a and b differ and is part of the difference: temperature 1.0 and 0.6"


def test_another_grader(pair, capsys):
    summary(pair[1], graders={"math": {"class_path": "Boxed", "version": "2"}})
    assert "graders of a and b differ" in (said := warned(compared(capsys, *pair)))
    assert said.endswith("math 1 and 2")


def test_unequal_numbers_of_samples(tmp_path, capsys):
    a = evaluation(tmp_path / "a", {"aime": [[1, 0, 1, 0], [0, 0, 0, 1]]})
    b = evaluation(tmp_path / "b", {"aime": [[1.0], [0.0]]})
    found = compared(capsys, a, b)
    assert "samples a problem differ (a 4, b 1): fine" in warned(found)
    assert "37.5 [" in found.out
    assert "+12.5 [" in found.out
