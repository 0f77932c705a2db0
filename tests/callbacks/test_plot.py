import struct
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from gopd_callbacks import plot
from gopd_callbacks.plot import Plot, draw
from matplotlib.figure import Figure
from tiny_run import Loader, Tiny, trainer

from gopd_lightning.metrics_file import MetricsFile

BASELINES = {"base": {"math": {"avg@4": 0.45}}, "teacher:math": {"math": {"avg@4": 0.7}}}


def size(file: Path) -> tuple[int, int]:
    content = file.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def write_metrics(folder: Path, steps: int = 6) -> Path:
    file = MetricsFile(str(folder))
    for step in range(steps):
        file.log_metrics({"kl_teacher/math": 1.0 - step, "length/math": 20.0, "entropy/code": 0.5}, step)
        if step % 3 == 2:
            file.log_metrics({"val/math/avg@4": 0.5 + 0.1 * step}, step)
    return file.path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []

    class Kept(Figure):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            figures.append(self)

    monkeypatch.setattr(plot, "Figure", Kept)
    return figures


def test_picture_is_1200_by_800_and_leaves_nothing_else(tmp_path: Path) -> None:
    draw(write_metrics(tmp_path), BASELINES, tmp_path / "curves.png")
    assert size(tmp_path / "curves.png") == (1200, 800)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.csv"]


def test_accuracy_starts_at_the_base_and_shows_the_teacher(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(write_metrics(tmp_path), BASELINES, tmp_path / "curves.png")
    lines = {str(line.get_label()): line for line in drawn[0].axes[0].get_lines()}
    assert list(lines["math: student"].get_xdata()) == [0, 3, 6]
    assert list(lines["math: student"].get_ydata()) == pytest.approx([0.45, 0.7, 1.0])
    assert list(lines["math: teacher"].get_ydata()) == [0.7, 0.7]


def test_a_domain_has_one_colour_in_all_panels(tmp_path: Path, drawn: list[Figure]) -> None:
    draw(write_metrics(tmp_path), BASELINES, tmp_path / "curves.png")
    colours: dict[str, set[Any]] = {"math": set(), "code": set()}
    for line in (line for axes in drawn[0].axes for line in axes.get_lines()):
        if (domain := str(line.get_label()).partition(":")[0]) in colours:
            colours[domain].add(line.get_color())
    assert [len(found) for found in colours.values()] == [1, 1]
    assert colours["math"] != colours["code"]


def test_a_run_that_has_only_begun_is_drawn(tmp_path: Path) -> None:
    draw(write_metrics(tmp_path, steps=1), {}, tmp_path / "curves.png")
    assert size(tmp_path / "curves.png") == (1200, 800)


def test_drawing_touches_no_global_state(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams), matplotlib.get_backend()
    draw(write_metrics(tmp_path), BASELINES, tmp_path / "curves.png")
    assert (dict(matplotlib.rcParams), matplotlib.get_backend()) == before


def test_drawn_after_each_validation_and_at_the_end(tmp_path: Path, drawn: list[Figure]) -> None:
    run = trainer(tmp_path, Plot("picture.png"), logger=MetricsFile(str(tmp_path)))
    run.fit(Tiny(), Loader(10), Loader(2))
    assert len(drawn) == 4
    assert size(tmp_path / "picture.png") == (1200, 800)


def test_no_picture_without_metrics(tmp_path: Path) -> None:
    trainer(tmp_path, Plot()).fit(Tiny(), Loader(10), Loader(2))
    assert not (tmp_path / "curves.png").exists()
