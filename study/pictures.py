"""The study's pictures, all from `results.json`."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gopd_callbacks.plot import COLOURS
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.pyplot import get_cmap

from study.intervals import FAILS, HOLDS
from study.plan import DOMAINS

Results = Mapping[str, Any]
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = COLOURS
OF_DOMAIN = dict(zip(DOMAINS, (BLUE, ORANGE), strict=True))
COLUMNS = {"sampled": "temperature 1", "greedy": "greedy"}
TITLES = {
    "reward": "reward",
    "length": "length (tokens)",
    "entropy": "entropy (nats a token)",
    "kl_teacher": "KL to teacher",
    "kl_reference": "KL to reference",
}


def draw_all(results: Results, folder: Path) -> None:
    """Draw every picture for which there are results.

    Args:
        results: The content of `results.json`.
        folder: Where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[Results], Figure | None]] = {
        "single.png": single,
        "steps.png": by_step,
        "merge.png": lambda found: methods(found, "early"),
        "strong.png": lambda found: methods(found, "strong"),
        "kinds.png": kinds,
        "prediction.png": prediction,
        "claims.png": claims,
    }
    for name, draw in pictures.items():
        figure = draw(results)
        if figure is not None:
            part = folder / f".{name}.part"
            figure.savefig(part, format="png")
            os.replace(part, folder / name)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _finish(axes: Axes, title: str, x: str = "", legend: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(x)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", framealpha=0.9, edgecolor="none", fontsize=9)


# One teacher, by lambda


def single(results: Results) -> Figure | None:
    """Accuracy, length and entropy of single-teacher students by lambda, beside the untrained target."""
    scales = _scales(results)
    if not scales:
        return None
    figure = _figure(13, 8.4)
    panels = dict(zip(("sampled", "greedy", "length", "entropy"), figure.subplots(2, 2).flat, strict=True))
    curve = results["predictions"]["curves"].get("curve/early", {})
    for measure, axes in panels.items():
        for domain in DOMAINS:
            _by_lambda(axes, results, curve, scales, domain, measure)
        axes.axvline(1, color="#888888", linewidth=1, linestyle=":")
        accuracy = f"Accuracy, {COLUMNS[measure]} (%)" if measure in COLUMNS else f"Response {TITLES[measure]}"
        _finish(axes, accuracy, "λ (0: reference, 1: teacher)", legend=measure == "sampled")
    return figure


def _scales(results: Results) -> list[float]:
    names = (name for name in results["groups"] if name.startswith("single/"))
    return sorted(float(name.removeprefix("single/")) for name in names)


def _by_lambda(
    axes: Axes, results: Results, curve: Mapping[str, Any], scales: Sequence[float], domain: str, measure: str
) -> None:
    colour = OF_DOMAIN[domain]
    found = [(s, results["groups"][f"single/{s:g}"]["figures"].get(domain)) for s in scales]
    points = [(scale, one[measure]) for scale, one in found if one]
    x = [scale for scale, _ in points]
    axes.plot(x, [p["mean"] for _, p in points], "o-", color=colour, linewidth=2, label=f"{domain}: trained students")
    axes.fill_between(x, [p["low"] for _, p in points], [p["high"] for _, p in points], color=colour, alpha=0.15)
    target = curve.get(domain, [])
    x = [point["scale"] for point in target]
    axes.plot(x, [p[measure] for p in target], "x--", color=colour, linewidth=1, label=f"{domain}: untrained target")
    teacher = results["groups"].get("early/teachers", {}).get("figures", {}).get(domain)
    if teacher:
        level = teacher[measure]["mean"]
        axes.axhline(level, color=colour, linestyle=":", linewidth=1.3, label=f"{domain}: its teacher")


# By step


def by_step(results: Results) -> Figure | None:
    """What single-teacher students do while they are trained, one colour a lambda."""
    scales = [scale for scale in _scales(results) if results["steps"].get(f"single/{scale:g}")]
    if not scales:
        return None
    figure = _figure(16, 6.6)
    panels = figure.subplots(len(DOMAINS), len(TITLES))
    colours, norm = get_cmap("cividis"), Normalize(min(scales), max(scales))
    for row, domain in enumerate(DOMAINS):
        for column, (name, title) in enumerate(TITLES.items()):
            for scale in scales:
                values = results["steps"][f"single/{scale:g}"].get(f"{name}/{domain}", [])
                axes = panels[row][column]
                axes.plot(range(1, len(values) + 1), _smooth(values), color=colours(norm(scale)), linewidth=1.6)
            _finish(axes, f"{domain}: {title}", "step" if row else "", legend=False)
            axes.title.set_fontsize(10)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=panels, location="right", shrink=0.8, ticks=scales)
    bar.set_label("λ (at 1 no reference is run: no KL to it)")
    return figure


def _smooth(values: Sequence[float], reach: int = 3) -> list[float]:
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


# Methods side by side


def methods(results: Results, kind: str) -> Figure | None:
    """Both columns of every method with one kind of experts, both domains averaged."""
    groups = {name: one for name, one in results["groups"].items() if name.startswith(f"{kind}/")}
    if len(groups) < 2:
        return None
    rows = {"base": results["groups"].get("base"), **groups}
    rows = {name: one for name, one in rows.items() if one}
    figure = _figure(13, 1.6 + 0.34 * len(rows))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (measure, title) in zip(panels, COLUMNS.items(), strict=True):
        for place, (name, one) in enumerate(rows.items()):
            _dot(axes, place, one["figures"][measure], _method_colour(name))
        teacher = groups.get(f"{kind}/teachers")
        if teacher:
            axes.axvline(teacher["figures"][measure]["mean"], color=BLACK, linestyle=":", linewidth=1.2)
        _finish(axes, f"Accuracy, {title} (%), mean of both domains", legend=False)
    panels[0].set_yticks(range(len(rows)), [_label(name, one) for name, one in rows.items()])
    panels[0].invert_yaxis()
    note = "Lines: 95 % intervals over prompts and seeds. Dotted: the experts, each in its domain."
    figure.supxlabel(note, fontsize=10)
    return figure


def _label(name: str, group: Mapping[str, Any]) -> str:
    seeds = len(group["seeds"])
    short = name.rpartition("/")[2]
    return f"{short} ({seeds} seeds)" if seeds > 1 and "weights" not in short else short


def _method_colour(name: str) -> str:
    marks = {"exopd": BLUE, "opd": SKY, "sft": GREEN, "weights": ORANGE}
    return next((colour for mark, colour in marks.items() if name.rpartition("/")[2].startswith(mark)), BLACK)


def _dot(axes: Axes, place: float, figure: Mapping[str, float], colour: str, filled: bool = True) -> None:
    axes.plot([figure["low"], figure["high"]], [place, place], color=colour, linewidth=2)
    axes.plot(figure["mean"], place, "o", color=colour, markerfacecolor=colour if filled else "white", markersize=7)


# Where extrapolation pays


def kinds(results: Results) -> Figure | None:
    """Accuracy by lambda of the merge, for every kind of experts."""
    curves = {kind: _merge_curve(results, kind) for kind in ("early", "long", "large")}
    curves = {kind: points for kind, points in curves.items() if len(points) > 1}
    if not curves:
        return None
    figure = _figure(13, 4.8)
    names = {"early": "small steps, stopped early", "long": "small steps, for long", "large": "large steps"}
    for axes, (measure, title) in zip(figure.subplots(1, 2), COLUMNS.items(), strict=True):
        for colour, shape, (kind, points) in zip((BLUE, ORANGE, GREEN), "os^", curves.items(), strict=False):
            x = [scale for scale, _ in points]
            found = [one["figures"][measure] for _, one in points]
            axes.plot(x, [f["mean"] for f in found], f"{shape}-", color=colour, linewidth=2, label=names[kind])
            axes.fill_between(x, [f["low"] for f in found], [f["high"] for f in found], color=colour, alpha=0.15)
            teacher = results["groups"].get(f"{kind}/teachers")
            if teacher:
                axes.axhline(teacher["figures"][measure]["mean"], color=colour, linestyle=":", linewidth=1.3)
        _finish(axes, f"Accuracy, {title} (%), mean of both domains", "λ of the merge (dotted: the experts)")
    return figure


def _merge_curve(results: Results, kind: str) -> list[tuple[float, Any]]:
    names = {1.0: "opd", 1.25: "exopd-1.25", 1.5: "exopd-1.5", 2.0: "exopd-2"}
    found = {scale: results["groups"].get(f"{kind}/{name}") for scale, name in names.items()}
    return [(scale, one) for scale, one in found.items() if one]


# The untrained target against the trained student


def prediction(results: Results) -> Figure | None:
    """Every student against the target that it was trained for."""
    pairs = [pair for pair in results["predictions"]["pairs"] if pair["scale"]]
    if not pairs:
        return None
    figure = _figure(13, 6.2)
    shapes = {"early": "o", "long": "s", "large": "^", "strong": "D", "strong-corrected": "v"}
    for axes, (measure, title) in zip(figure.subplots(1, 2), COLUMNS.items(), strict=True):
        for kind, shape in shapes.items():
            for domain in DOMAINS:
                own = [p[measure] for p in pairs if p["experts"] == kind and p["domain"] == domain]
                x, y = [p["target"] for p in own], [p["student"] for p in own]
                label = f"{kind}, {domain}" if own else "_"
                axes.plot(x, y, shape, color=OF_DOMAIN[domain], alpha=0.75, markersize=6, label=label)
        ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
        axes.plot(ends, ends, color="#888888", linewidth=1, linestyle=":")
        axes.set_ylabel("trained student, %")
        gap = results["predictions"]["distance"]["all"][measure]
        _finish(axes, f"{title}: mean absolute difference {gap:.1f} points", "untrained target, %")
    return figure


# Claims


def claims(results: Results) -> Figure | None:
    """Effects of all claims in accuracy, with intervals; filled where the claim holds."""
    rows = [claim for claim in results["claims"] if set(claim["measures"]) == set(COLUMNS)]
    rows = [claim for claim in rows if all(p for c in claim["measures"].values() for p in c["parts"])]
    if not rows:
        return None
    places = [(claim, part) for claim in rows for part in range(len(claim["parts"]))]
    figure = _figure(13, 1.4 + 0.3 * len(places))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (measure, title) in zip(panels, COLUMNS.items(), strict=True):
        for place, (claim, part) in enumerate(places):
            column = claim["measures"][measure]
            colour = {HOLDS: BLUE, FAILS: ORANGE}.get(column["verdict"], BLACK)
            _dot(axes, place, column["parts"][part], colour, filled=column["verdict"] == HOLDS)
        axes.axvline(0, color="#444444", linewidth=1)
        _finish(axes, f"Effect, {title} (points)", legend=False)
    panels[0].set_yticks(range(len(places)), [_part_label(claim, part) for claim, part in places], fontsize=9)
    panels[0].invert_yaxis()
    figure.supxlabel("Blue, filled: the claim holds. Orange: it does not. Black: undecided.", fontsize=10)
    return figure


def _part_label(claim: Mapping[str, Any], part: int) -> str:
    weights = claim["parts"][part]["weights"]
    if len(weights) > 2:
        return f"{claim['claim']}: difference of gains"
    domains = claim["parts"][part]["domains"]
    where = f", {domains[0]}" if len(domains) == 1 else ""
    return f"{claim['claim']}: {' − '.join(weights)}{where}"
