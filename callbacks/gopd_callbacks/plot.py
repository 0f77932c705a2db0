"""The curves of a run as one PNG: accuracy against base and teachers, KL, response length, entropy."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from gopd_callbacks.figures import (
    Baselines,
    accuracy_names,
    base_line,
    domains_of,
    read_baselines,
    teacher_line,
)
from gopd_lightning.metrics_file import read_rows

# told apart by everybody
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Series = tuple[list[int], list[float]]


class Plot(Callback):
    """Draws the curves of a run, after each validation and at the end of a fit.

    Args:
        file: Name of the picture in the run folder.
    """

    def __init__(self, file: str = "curves.png") -> None:
        self._file = file

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what there is by now."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._draw(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the whole run."""
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero and (folder / "metrics.csv").exists():
            draw(folder / "metrics.csv", read_baselines(folder), folder / self._file)


def draw(metrics_csv: Path, baselines: Baselines, out: Path) -> None:
    """Draw a run's curves, 1200 x 800 pixels; one colour a domain in all panels.

    Args:
        metrics_csv: What `MetricsFile` wrote.
        baselines: Accuracies of base and teachers; may be empty.
        out: The PNG; written whole or not at all.
    """
    rows = read_rows(metrics_csv)
    names = rows[0].keys() if rows else []
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(domains_of(names))}
    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2).flat
    _accuracy(panels[0], rows, baselines, colours)
    _kl(panels[1], rows, colours)
    _plain(panels[2], rows, colours, "length", "Response length (tokens)")
    _plain(panels[3], rows, colours, "entropy", "Entropy of the student (nats a token)")
    save(figure, out)


def save(figure: Figure, out: Path) -> None:
    """Write a picture whole or not at all.

    Args:
        figure: The picture.
        out: The PNG.
    """
    temporary = out.with_name(f".{out.name}.new")
    figure.savefig(temporary, format="png")
    os.replace(temporary, out)


def _accuracy(axes: Axes, rows: Sequence[Mapping[str, str]], baselines: Baselines, colours: Mapping[str, str]) -> None:
    figures = set()
    for dataset, name in accuracy_names(rows[0] if rows else []).items():
        figure = name.rpartition("/")[2]
        figures.add(figure)
        colour = colours[dataset]
        steps, values = _series(rows, name)
        base = base_line(baselines, dataset, figure)
        if base is not None and steps and steps[0] > 0:
            steps, values = [0, *steps], [base, *values]
        axes.plot(steps, values, "o-", color=colour, linewidth=2, markersize=5, label=f"{dataset}: student")
        _level(axes, teacher_line(baselines, dataset, figure), colour, "--", f"{dataset}: teacher")
        _level(axes, base, colour, ":", f"{dataset}: base")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _finish(axes, f"Validation accuracy ({', '.join(sorted(figures)) or 'none yet'})")


def _kl(axes: Axes, rows: Sequence[Mapping[str, str]], colours: Mapping[str, str]) -> None:
    for domain, colour in colours.items():
        for model, style in (("teacher", "-"), ("reference", "--")):
            _curve(axes, _series(rows, f"kl_{model}/{domain}"), colour, style, f"{domain}: to {model}")
    _finish(axes, "KL of the student (nats a token)")


def _plain(axes: Axes, rows: Sequence[Mapping[str, str]], colours: Mapping[str, str], figure: str, title: str) -> None:
    for domain, colour in colours.items():
        _curve(axes, _series(rows, f"{figure}/{domain}"), colour, "-", domain)
    _finish(axes, title)


def _series(rows: Sequence[Mapping[str, str]], name: str) -> Series:
    """Steps and values of the rows that have the metric."""
    found = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
    return [step for step, _ in found], [value for _, value in found]


def _curve(axes: Axes, series: Series, colour: str, style: str, label: str) -> None:
    """A noisy series faint, its running mean strong."""
    steps, values = series
    if not steps:
        return
    axes.plot(steps, values, style, color=colour, alpha=0.25, linewidth=1)
    axes.plot(steps, _smooth(values), style, color=colour, linewidth=2, label=label)


def _smooth(values: Sequence[float], share: float = 0.03) -> list[float]:
    """Centred running mean over a few per cent of the run."""
    reach = round(len(values) * share)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _level(axes: Axes, value: float | None, colour: str, style: str, label: str) -> None:
    if value is not None:
        axes.axhline(value, color=colour, linestyle=style, linewidth=1.5, alpha=0.8, label=label)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=9, ncols=2)
