"""One picture a case: how far its figures are from their goals, and what the case itself wants to show."""

import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from table import figure, goal

# told apart by everybody
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
LONGEST = 3.0  # times the goal that a bar shows
MET, MISSED = "#009E73", "#D55E00"


def draw(case: str, results: dict[str, Any], file: Path) -> None:
    """Draw a case.

    Args:
        case: Its name.
        results: What it wrote: `summary` rows and, optionally, a `plot` of lines or bars.
        file: The PNG; not written where there is nothing to draw.
    """
    rows = [row for row in results.get("summary", []) if row["goal"] is not None and row["figure"]]
    plot = results.get("plot")
    panels = [part for part in (rows, plot) if part]
    if not panels:
        return
    height = 1.2 + 0.42 * max(len(rows), 6)
    picture = Figure(figsize=(8.0 if len(panels) == 1 else 15.0, max(height, 4.0)), layout="constrained")
    FigureCanvasAgg(picture)
    axes = list(picture.subplots(1, len(panels), squeeze=False)[0])
    if rows:
        goals(axes.pop(0), case, rows)
    if plot:
        (lines if "lines" in plot else bars)(axes[0], plot)
    part = file.with_suffix(".part")
    picture.savefig(part, dpi=110, format="png")
    os.replace(part, file)


def goals(axes: Axes, case: str, rows: list[dict[str, Any]]) -> None:
    """A bar a row, as long as the share of its goal that is reached; 1 and more is met."""
    reached = [share_of_goal(row) for row in rows]
    places = range(len(rows) - 1, -1, -1)
    axes.barh(places, reached, color=[MET if row["met"] else MISSED for row in rows], height=0.6)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(places, [row["what"] for row in rows], fontsize=8)
    limit = min(max(2.0, *reached), LONGEST)
    axes.set_xlim(0, limit * 1.35)
    for place, row, value in zip(places, rows, reached, strict=True):
        text = f"{'>> ' if value > limit else ''}{figure(row)} ({goal(row)})"
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
        axes.text(min(value, limit) + 0.03, place, text, va="center", fontsize=8, bbox=paper)
    axes.set_title(f"{case}: share of the goal (green: met)", fontsize=10)


def share_of_goal(row: dict[str, Any]) -> float:
    """1 where a goal is just met, more where it is passed."""
    relation, limit = row["goal"].split()
    ratio = row["figure"] / float(limit)
    return float(ratio if relation == ">=" else 1 / ratio)


def lines(axes: Axes, plot: dict[str, Any]) -> None:
    """Lines with a marker a measurement."""
    for colour, (name, points) in zip(COLOURS, plot["lines"].items(), strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
    if plot.get("log"):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
    axes.set_xlabel(plot["x"])
    _finish(axes, plot)


def bars(axes: Axes, plot: dict[str, Any]) -> None:
    """A group of bars a thing that was measured, a colour a way of doing it; a list of values is stacked."""
    ways = plot["bars"]
    things = list(dict.fromkeys(thing for values in ways.values() for thing in values))
    width = 0.8 / len(ways)
    for i, (colour, (name, values)) in enumerate(zip(COLOURS, ways.items(), strict=False)):
        for j, thing in enumerate(things):
            place, label = j - 0.4 + (i + 0.5) * width, name if thing == next(iter(values)) else None
            _stack(axes, place, 0.92 * width, values.get(thing, ()), colour, label)
    axes.set_xticks(range(len(things)), [thing.replace(", ", "\n") for thing in things], fontsize=8)
    _finish(axes, plot)


def _stack(axes: Axes, place: float, width: float, values: Any, colour: str, label: str | None) -> None:
    """One bar; of several values the first is dark and the others lighter."""
    below = 0.0
    for k, value in enumerate(values if isinstance(values, list | tuple) else [values]):
        axes.bar(place, value, width, below, color=colour, alpha=0.55**k, label=None if k else label)
        below += value


def _finish(axes: Axes, plot: dict[str, Any]) -> None:
    axes.set_ylabel(plot["y"])
    axes.set_title(plot["title"], fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
