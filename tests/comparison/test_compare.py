"""`gopd compare` from the command line to its files."""

import random
import shutil
from pathlib import Path

import matplotlib.image
import pytest
import torch
from evaluations import drawn, evaluation
from tiny_command import command

from gopd_lightning.metrics import AvgAtK

SETS = {"aime": 30, "code": 80}


def run(folder: Path, skill: float, seed: int, samples: int = 4, **summary: object) -> str:
    rewards = {name: drawn(size, samples, skill, seed + i) for i, (name, size) in enumerate(SETS.items())}
    return str(evaluation(folder, rewards, **summary))


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "comparison"


def rows(markdown: str) -> list[list[str]]:
    """The cells of the table's rows."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_identical_runs_are_within_noise(out, tmp_path, capsys):
    first = run(tmp_path / "a", 0.0, 1)
    second = shutil.copytree(first, tmp_path / "b")
    (second / "summary.json").write_text((second / "summary.json").read_text().replace('"a"', '"b"', 1))
    found = command(capsys, "compare", first, str(second))
    assert (found.code, found.errors) == (0, [])
    assert "aime, code, all sets: b and a are within noise of each other." in found.out
    tested = [cells for cells in rows((out / "comparison.md").read_text()) if cells[2] == "b"]
    assert [cells[0] for cells in tested] == ["aime", "code", "all sets"]
    for cells in tested:
        assert cells[4:] == ["+0.0 [+0.0, +0.0]", "1.000", "1.000", "+0 -0 p 1.000", "within noise"]


def test_a_clearly_better_run_is_said_to_be(out, tmp_path, capsys):
    found = command(capsys, "compare", run(tmp_path / "base", 0.0, 1), run(tmp_path / "tuned", 0.4, 2))
    assert (found.code, found.errors) == (0, [])
    (said,) = [line for line in found.out.splitlines() if line.startswith("all sets: ")]
    assert said.startswith("all sets: tuned is better than base by ")
    assert [cells[-1] for cells in rows((out / "comparison.md").read_text())] == ["", "better"] * 3


def test_the_order_of_the_runs_turns_the_verdict(out, tmp_path, capsys):
    found = command(capsys, "compare", run(tmp_path / "tuned", 0.4, 2), run(tmp_path / "base", 0.0, 1))
    (said,) = [line for line in found.out.splitlines() if line.startswith("all sets: ")]
    assert said.startswith("all sets: base is worse than tuned by ")
    low, high = (float(end) for end in said.split("[")[1].rstrip("].").split(", "))
    assert 0 < low < high


def test_figures_and_intervals_are_those_of_the_metric(out, tmp_path, capsys):
    first, second = run(tmp_path / "a", 0.0, 1), run(tmp_path / "b", 0.1, 2)
    command(capsys, "compare", first, second)
    metric = AvgAtK()
    for samples in drawn(30, 4, 0.0, 1):
        metric.update(torch.tensor([sum(samples)]), torch.tensor([4]))
    figure = metric.figure()
    expected = f"{100 * figure.mean:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
    assert rows((out / "comparison.md").read_text())[0][:4] == ["aime", "30", "a", expected]


def test_five_runs_fit_into_a_hundred_columns(out, tmp_path, capsys):
    folders = [run(tmp_path / f"student-of-many-teachers-{i}", 0.05 * i, 10 * i) for i in range(5)]
    found = command(capsys, "compare", *folders)
    assert (found.code, found.errors) == (0, [])
    assert max(map(len, found.out.splitlines()[:-1])) <= 100
    assert "…" not in found.out
    assert found.out.count("within noise") + found.out.count("better ") >= 12


def test_what_is_left_is_markdown_and_a_picture(out, tmp_path, capsys):
    folders = [run(tmp_path / name, skill, i) for i, (name, skill) in enumerate({"a": 0.0, "b": 0.3, "c": 0.1}.items())]
    target = tmp_path / "deep" / "er"
    found = command(capsys, "compare", *folders, "--out", str(target), "--level", "0.9")
    assert found.code == 0
    assert sorted(file.name for file in target.iterdir()) == ["comparison.md", "comparison.png"]
    assert not out.exists()
    picture = matplotlib.image.imread(target / "comparison.png")
    assert picture.shape[1] > 1_000
    assert picture.std() > 0.05
    text = (target / "comparison.md").read_text()
    assert "90 % interval" in text
    assert f"- b: `{tmp_path / 'b'}`" in text
    assert "Holm's correction over all 6 differences" in text
    assert len(rows(text)) == 9


def test_the_same_comparison_gives_the_same_files(out, tmp_path, capsys):
    folders = (run(tmp_path / "a", 0.0, 1), run(tmp_path / "b", 0.1, 2))
    command(capsys, "compare", *folders)
    first = {file.name: file.read_bytes() for file in out.iterdir()}
    command(capsys, "compare", *folders)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == first


def test_the_order_of_lines_changes_nothing(out, tmp_path, capsys):
    folders = (run(tmp_path / "a", 0.0, 1), run(tmp_path / "b", 0.1, 2))
    command(capsys, "compare", *folders)
    first = (out / "comparison.md").read_text()
    for file in tmp_path.glob("b/*.jsonl"):
        lines = file.read_text().splitlines(keepends=True)
        random.Random(0).shuffle(lines)
        file.write_text("".join(lines))
    command(capsys, "compare", *folders)
    assert (out / "comparison.md").read_text() == first


def test_a_failure_leaves_older_files_whole(out, tmp_path, capsys, monkeypatch):
    folders = (run(tmp_path / "a", 0.0, 1), run(tmp_path / "b", 0.1, 2))
    command(capsys, "compare", *folders)
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def fails(*args: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("gopd_lightning.comparison.command.draw", fails)
    with pytest.raises(RuntimeError):
        command(capsys, "compare", folders[1], folders[0])
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_runs_of_one_name_are_told_apart(out, tmp_path, capsys):
    first = run(tmp_path / "a", 0.0, 1, name="same")
    command(capsys, "compare", first, run(tmp_path / "b", 0.0, 2, name="same"), first)
    names = {cells[2] for cells in rows((out / "comparison.md").read_text())}
    assert names == {first, str(tmp_path / "b"), f"{first} (2)"}


def test_names_that_look_like_markup_are_shown_as_they_are(out, tmp_path, capsys):
    found = command(capsys, "compare", run(tmp_path / "a", 0.0, 1, name="[red]a|b"), run(tmp_path / "b", 0.3, 2))
    assert "[red]a|b" in found.out
    assert "[red]a\\|b" in (out / "comparison.md").read_text()


def test_help(capsys):
    found = command(capsys, "compare", "--help")
    assert (found.code, found.errors) == (0, [])
    assert all(name in found.out for name in ("RUN", "--out", "--level", "comparison.png", "default: 0.95"))
