"""A comparison as one PNG: each run's avg@k, and the differences to the first, with intervals."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gopd_lightning.comparison.statistics import SetComparison

# told apart by everybody, and by shape as well
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("s", "o", "^", "D", "v", "P", "X")
STEP = 0.25  # between the lines of two runs, in inches
GAP = 0.6  # between two data sets, in steps


def draw(comparisons: Sequence[SetComparison], runs: Sequence[str], level: float, out: Path) -> None:
    """Draw the picture.

    Args:
        comparisons: What `compare` found.
        runs: Names of the runs.
        level: Of the intervals.
        out: The PNG.
    """
    block = len(runs) + GAP
    height = STEP * block * len(comparisons) + 1.7 + 0.22 * len(runs)
    figure = Figure(figsize=(11, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.2, 1))
    for run, name in enumerate(runs):
        _shares(left, comparisons, run, block, _short(name, 50))
        if run:
            _differences(right, comparisons, run, block, level)
    _frame(left, comparisons, block, "avg@k, %")
    _frame(right, comparisons, block, f"difference to {_short(runs[0])}, points")
    right.axvline(0, color="#444444", linewidth=1.2, zorder=1)
    handles, labels = left.get_legend_handles_labels()
    columns = len(runs) if sum(map(len, labels)) + 6 * len(runs) <= 120 else 2
    figure.legend(handles, labels, loc="outside upper left", frameon=False, ncols=columns, fontsize=10)
    note = f"Lines: {100 * level:g} % intervals over problems. Hollow and pale: within noise after Holm's correction."
    figure.supxlabel(note, x=0.01, ha="left", fontsize=10)
    figure.savefig(out, format="png")


def _shares(axes: Axes, comparisons: Sequence[SetComparison], run: int, block: float, name: str) -> None:
    for place, one in _places(comparisons, run, block):
        figure = one.figures[run]
        _dot(axes, place, (figure.low, figure.mean, figure.high), run, solid=True, label=name)
        name = "_"  # one entry in the legend


def _differences(axes: Axes, comparisons: Sequence[SetComparison], run: int, block: float, level: float) -> None:
    for place, one in _places(comparisons, run, block):
        found = one.differences[run - 1]
        holds = found.verdict(level) != "within noise"
        _dot(axes, place, (found.low, found.mean, found.high), run, solid=holds, label="_")


def _places(comparisons: Sequence[SetComparison], run: int, block: float) -> Iterator[tuple[float, SetComparison]]:
    """Where a run's lines are, from top to bottom."""
    for i, one in enumerate(comparisons):
        yield i * block + run, one


def _dot(axes: Axes, place: float, ends: tuple[float, float, float], run: int, solid: bool, label: str) -> None:
    """A point with its interval, in points of a hundred."""
    low, mean, high = (100 * end for end in ends)
    colour, shape = COLOURS[run % len(COLOURS)], SHAPES[run % len(SHAPES)]
    axes.plot([low, high], [place, place], color=colour, linewidth=2, alpha=1 if solid else 0.5, zorder=2)
    face = colour if solid else "white"
    axes.plot(mean, place, shape, color=colour, markerfacecolor=face, markersize=7, linestyle="", label=label, zorder=3)


def _frame(axes: Axes, comparisons: Sequence[SetComparison], block: float, title: str) -> None:
    """Names of the data sets, a band behind every other one, and the grid."""
    runs = block - GAP
    middle = [i * block + (runs - 1) / 2 for i in range(len(comparisons))]
    axes.set_yticks(middle, [f"{_short(one.name)}\n{one.problems} problems" for one in comparisons])
    axes.set_ylim(len(comparisons) * block - (1 + GAP) / 2, -(1 + GAP) / 2)
    for i in range(0, len(comparisons), 2):
        start = i * block - (1 + GAP) / 2
        axes.axhspan(start, start + block, color="#f2f2f2", zorder=0, linewidth=0)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
