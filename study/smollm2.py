"""docs/smollm2.md from what the commands in it left in runs/: `python -m study.smollm2`. Nothing is run here.

Measured are base and experts, and every seed of the two merges that is there: runs/smollm2/opd, opd-1, and so on.
"""

import csv
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from study.document import table
from study.intervals import Effect, effect

RUNS, EVALUATIONS, DOCUMENT = Path("runs/smollm2"), Path("runs/eval"), Path("docs/smollm2.md")
TEMPLATE = Path(__file__).with_name("smollm2.md")
MODELS = {"base": "base", "math expert": "math-expert", "code expert": "code-expert"}
MERGES = {"OPD, λ = 1": "opd", "ExOPD, λ = 1.25": "exopd"}
PARTS = ("math", "code", "code: formulas", "code: larger or smaller")
CONTRASTS = (
    ("ExOPD above OPD", {"ExOPD, λ = 1.25": 1, "OPD, λ = 1": -1}, PARTS),
    ("OPD above the math expert", {"OPD, λ = 1": 1, "math expert": -1}, PARTS[:1]),
    ("ExOPD above the math expert", {"ExOPD, λ = 1.25": 1, "math expert": -1}, PARTS[:1]),
    ("OPD above the code expert", {"OPD, λ = 1": 1, "code expert": -1}, PARTS[1:]),
    ("ExOPD above the code expert", {"ExOPD, λ = 1.25": 1, "code expert": -1}, PARTS[1:]),
)
WAYS = {"T = 1": "", "greedy": "greedy-"}
WINDOW = 5  # steps of a moving mean in the picture

Points = NDArray[np.float64]
Tables = dict[str, dict[str, dict[str, dict[int | None, Points]]]]


def seeds(run: str) -> dict[int, str]:
    """The runs of a merge by seed: `opd` is seed 0, `opd-1` seed 1."""
    found = {seed: run if seed == 0 else f"{run}-{seed}" for seed in range(10)}
    return {seed: name for seed, name in found.items() if list(EVALUATIONS.glob(f"{name}-????????"))}


def points(name: str, way: str) -> dict[str, Points]:
    """Percent of right answers of each prompt, by part.

    Args:
        name: Of the evaluated model.
        way: Beginning of its folder's name.

    Raises:
        SystemExit: It was not measured, or twice.
    """
    folders = list(EVALUATIONS.glob(f"{way}{name}-????????"))
    if len(folders) != 1:
        sys.exit(f"{EVALUATIONS}/{way}{name}-*: {len(folders)} folders, expected 1; {DOCUMENT} says how to measure")
    by_prompt: dict[str, dict[str, list[float]]] = {part: {} for part in PARTS}
    for domain in ("math", "code"):
        for line in (folders[0] / f"{domain}.jsonl").read_text().splitlines():
            row = json.loads(line)
            for part in {domain, kind(domain, row["prompt"])}:
                by_prompt[part].setdefault(row["id"], []).append(100 * row["reward"])
    return {part: np.array([np.mean(rewards) for rewards in found.values()]) for part, found in by_prompt.items()}


def kind(domain: str, prompt: str) -> str:
    """The part of a domain that a prompt belongs to: what it asks is in its last turn."""
    if domain == "math":
        return domain
    asked = prompt.rpartition("f(x, y) that returns ")[2]
    return PARTS[3] if asked.startswith(("the larger", "the smaller")) else PARTS[2]


def measured() -> Tables:
    """Way -> model -> part -> seed -> points a prompt."""
    tables: Tables = {way: {} for way in WAYS}
    for way, beginning in WAYS.items():
        for title, name in MODELS.items():
            tables[way][title] = {part: {None: found} for part, found in points(name, beginning).items()}
        for title, run in MERGES.items():
            by_seed = {seed: points(name, beginning) for seed, name in seeds(run).items()}
            tables[way][title] = {part: {seed: found[part] for seed, found in by_seed.items()} for part in PARTS}
    return tables


def accuracies(tables: Tables) -> str:
    """A row a model, with 95 % intervals over prompts and seeds."""
    head = ["model", "seeds", *(f"{part}, {way}" for part in PARTS for way in WAYS)]
    rows = []
    for title in (*MODELS, *MERGES):
        cells = [_cell(effect(tables[way], {title: 1}, (part,)), sign="") for part in PARTS for way in WAYS]
        rows.append([title, str(len(tables["greedy"][title]["math"])) if title in MERGES else "—", *cells])
    return table(head, rows)


def contrasts(tables: Tables) -> str:
    """Differences in points, paired by prompt and seed."""
    rows = []
    for title, weights, parts in CONTRASTS:
        for part in parts:
            cells = [_cell(effect(tables[way], weights, (part,)), sign="+") for way in WAYS]
            rows.append([title, part, *cells])
    return table(["difference", "on", *WAYS], rows)


def _cell(found: Effect | None, sign: str) -> str:
    assert found is not None
    return f"{found.mean:{sign}.1f} [{found.low:{sign}.1f}, {found.high:{sign}.1f}]"


def curve(name: str, column: str) -> Points:
    """A figure by step, as a moving mean."""
    with (RUNS / name / "metrics.csv").open() as file:
        values = [float(row[column]) for row in csv.DictReader(file) if row.get(column)]
    return np.convolve(values, np.full(WINDOW, 1 / WINDOW), mode="valid")


def draw(file: Path) -> None:
    """KL to the teacher and reward of the rollouts by step, a line a run.

    Args:
        file: The PNG.
    """
    mpl.use("Agg")
    figure, grid = plt.subplots(2, 2, figsize=(9, 5.2), sharex=True, layout="constrained")
    for column, domain in enumerate(("math", "code")):
        for row, (measure, label) in enumerate((("kl_teacher", "KL to teacher, nats a token"), ("reward", "reward"))):
            axes = grid[row][column]
            for color, (title, run) in zip(("C0", "C1"), MERGES.items(), strict=True):
                for seed, name in seeds(run).items():
                    values = curve(name, f"{measure}/{domain}")
                    steps = np.arange(len(values)) + (WINDOW + 1) / 2
                    axes.plot(steps, values, color=color, lw=1.3, alpha=0.8, label=title if seed == 0 else None)
            axes.set_title(domain) if row == 0 else axes.set_xlabel("step")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
    grid[0][0].legend(frameon=False)
    part = file.with_name(f".{file.name}")
    figure.savefig(part, dpi=110, format="png")
    os.replace(part, file)


def costs() -> str:
    """Steps, responses and seconds of every run of a merge."""
    rows = []
    for title, run in MERGES.items():
        for seed, name in seeds(run).items():
            with (RUNS / name / "metrics.csv").open() as file:
                steps: list[Mapping[str, Any]] = [row for row in csv.DictReader(file) if row["time/update_s"]]
            phases = [sum(float(row[f"time/{phase}_s"]) for row in steps) for phase in ("rollout", "score", "train")]
            cells = [f"{seconds:,.0f}" for seconds in phases]
            rows.append([title, str(seed), str(len(steps)), *cells])
    return table(["merge", "seed", "steps", "rollout, s", "scoring, s", "training, s"], rows)


def main() -> None:
    """Write the document and its picture, each whole or not at all."""
    tables = measured()
    draw(DOCUMENT.with_suffix(".png"))
    text = TEMPLATE.read_text()
    parts = {"accuracies": accuracies(tables), "contrasts": contrasts(tables), "costs": costs()}
    for name, content in parts.items():
        text = text.replace(f"{{{{{name}}}}}", content)
    part = DOCUMENT.with_name(f".{DOCUMENT.name}")
    part.write_text(text)
    os.replace(part, DOCUMENT)
    print(f"{DOCUMENT} and {DOCUMENT.with_suffix('.png')} are written")


if __name__ == "__main__":
    main()
