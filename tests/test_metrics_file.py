import csv
from pathlib import Path

import pytest

from gopd_lightning.errors import InputError
from gopd_lightning.metrics_file import MetricsFile, read_rows


def log_steps(file: MetricsFile, steps: range, val_every: int = 3) -> None:
    for step in steps:
        file.log_metrics({"train/loss": 1 / (step + 1), "reward/math": 0.1 * step, "epoch": 0}, step)
        file.save()
        if (step + 1) % val_every == 0:
            file.log_metrics({"val/math/avg@4": step / 7, "epoch": 0}, step)


def test_one_row_a_step_with_step_first_and_columns_in_order(tmp_path: Path) -> None:
    log_steps(MetricsFile(str(tmp_path)), range(4))
    lines = list(csv.reader((tmp_path / "metrics.csv").open()))
    assert lines[0] == ["step", "epoch", "reward/math", "train/loss", "val/math/avg@4"]
    assert [line[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert [bool(line[4]) for line in lines[1:]] == [False, False, True, False]


def test_floats_are_read_back_to_the_last_bit(tmp_path: Path) -> None:
    log_steps(MetricsFile(str(tmp_path)), range(3))
    rows = read_rows(tmp_path / "metrics.csv")
    assert [float(row["train/loss"]) for row in rows] == [1 / 1, 1 / 2, 1 / 3]


@pytest.mark.parametrize("killed_after", [1, 3, 5, 7])
@pytest.mark.parametrize("cut", [0, 5])
def test_killed_and_resumed_file_equals_the_uninterrupted_one(tmp_path: Path, killed_after: int, cut: int) -> None:
    log_steps(MetricsFile(str(tmp_path / "whole")), range(9))
    log_steps(MetricsFile(str(tmp_path / "resumed")), range(killed_after))
    path = tmp_path / "resumed/metrics.csv"
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    log_steps(MetricsFile(str(tmp_path / "resumed")), range(max(0, killed_after - 2), 9))
    assert path.read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


def test_columns_that_only_a_dropped_row_had_are_gone(tmp_path: Path) -> None:
    log_steps(MetricsFile(str(tmp_path)), range(3))
    log_steps(MetricsFile(str(tmp_path)), range(2, 3), val_every=9)
    assert "val/math/avg@4" not in read_rows(tmp_path / "metrics.csv")[0]


def test_evaluation_alone_leaves_an_existing_file_as_it_is(tmp_path: Path) -> None:
    log_steps(MetricsFile(str(tmp_path)), range(4))
    before = (tmp_path / "metrics.csv").read_bytes()
    MetricsFile(str(tmp_path)).log_metrics({"val/math/avg@4": 0.9}, 0)
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_evaluation_before_training_is_row_zero(tmp_path: Path) -> None:
    file = MetricsFile(str(tmp_path))
    file.log_metrics({"val/math/avg@4": 0.25, "epoch": 0}, 0)
    log_steps(file, range(2))
    assert [(row["step"], row["val/math/avg@4"]) for row in read_rows(file.path)] == [
        ("0", "0.25"),
        ("1", ""),
        ("2", ""),
    ]


def test_file_is_rewritten_only_when_a_column_is_new(tmp_path: Path) -> None:
    file = MetricsFile(str(tmp_path))
    log_steps(file, range(3))
    inode = file.path.stat().st_ino
    log_steps(file, range(3, 50))
    assert file.path.stat().st_ino == inode
    assert len(read_rows(file.path)) == 50


def test_lightning_finds_the_run_folder_through_it(tmp_path: Path) -> None:
    file = MetricsFile(str(tmp_path))
    assert (file.save_dir, file.log_dir, file.name, file.version) == (str(tmp_path), str(tmp_path), "", "")


def test_foreign_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="line 2: not a row of metrics") as error:
        MetricsFile(str(tmp_path)).log_metrics({"train/loss": 1.0}, 0)
    assert "\n" not in str(error.value)
