"""Everything that was measured, as one mapping: `results.json`. Tables, pictures and claims are made of it alone."""

import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from study.choices import Choices
from study.claims import CLAIMS, DIRECTIONS, NOTHING, Claim
from study.commands import Run
from study.design import Design
from study.intervals import Effect, Table, effect, together, verdict
from study.plan import DOMAINS
from study.prediction import predictions
from study.reading import MEASURES, answers, finished, record_file, steps, tokens

SCALE = {"sampled": 100.0, "greedy": 100.0, "length": 1.0, "entropy": 1.0}  # shares in points
CURVES = ("reward", "length", "entropy", "kl_teacher", "kl_reference")


def gather(design: Design) -> dict[str, Any]:
    """Read all finished runs.

    Args:
        design: All runs.
    """
    work = design.mode.work
    done = list(finished(design.runs, work))
    measured = [run for run in done if run.group]
    tables = tables_of(measured)
    groups = {name: _group(name, tables, measured, work) for name in dict.fromkeys(run.group for run in measured)}
    return {
        "machine": _machine(),
        "design": _facts(design),
        "missing": sorted({run.group for run in design.runs if run.group and run not in measured}),
        "seconds": sum(_seconds(run, work) for run in done),
        "choices": Choices(design).report(),
        "groups": groups,
        "claims": [_claim(claim, tables, groups) for claim in CLAIMS],
        "directions": [_direction(one, tables["greedy"]) for one in DIRECTIONS],
        "predictions": predictions(design, groups),
        "steps": {name: _curves([run for run in measured if run.group == name], work) for name in groups},
        "runs": {run.name: _run(run, work, tables) for run in done},
    }


def tables_of(runs: Iterable[Run]) -> dict[str, Table]:
    """Values prompt by prompt, by measure, group, domain and seed.

    Args:
        runs: Finished, measured runs.
    """
    tables: dict[str, dict[str, dict[str, dict[int | None, Any]]]] = {measure: {} for measure in MEASURES}
    for run in runs:
        seed = None if "/weights-" in run.name else run.seed
        for domain in run.domains:
            found = answers(run, domain)
            for measure in MEASURES:
                values = SCALE[measure] * getattr(found, measure)
                tables[measure].setdefault(run.group, {}).setdefault(domain, {})[seed] = values
    return tables  # type: ignore[return-value]


def _group(name: str, tables: Mapping[str, Table], runs: list[Run], work: Path) -> dict[str, Any]:
    """Means with intervals of each measure, and what a run of the group costs to make."""
    own = [run for run in runs if run.group == name]
    domains = [domain for domain in DOMAINS if domain in tables["greedy"][name]]
    made = [run for run in own if len(run.commands) > 1]
    found = {m: _shown(effect(tables[m], {name: 1}, domains)) for m in MEASURES}
    for domain in domains:
        by_domain = {m: _shown(effect(tables[m], {name: 1}, (domain,))) for m in MEASURES}
        found[domain] = by_domain  # type: ignore[assignment]
    return {
        "figures": found,
        "seeds": sorted({run.seed for run in own if run.seed is not None}),
        "tokens": float(np.mean([tokens(run, work) for run in made])) if made else 0.0,
        "seconds": float(np.mean([_making(run, work) for run in made])) if made else 0.0,
    }


def _claim(claim: Claim, tables: Mapping[str, Table], groups: Mapping[str, Any]) -> dict[str, Any]:
    columns = {}
    for measure in claim.measures:
        found = [effect(tables[measure], part.weights, part.domains) for part in claim.parts]
        verdicts = [verdict(one, part.region, NOTHING[measure]) for one, part in zip(found, claim.parts, strict=True)]
        columns[measure] = {"verdict": together(verdicts), "parts": [_shown(one) for one in found]}
    names = list(dict.fromkeys(name for part in claim.parts for name in part.weights))
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "parts": [
            {"weights": dict(part.weights), "region": [_finite(x) for x in part.region], "domains": list(part.domains)}
            for part in claim.parts
        ],
        "measures": columns,
        "seeds": {name: groups[name]["seeds"] for name in names if name in groups},
        "command": f"python study/everything.py {shlex.join(names)}",
        "picture": claim.picture,
    }


def _direction(direction: Any, table: Table) -> dict[str, Any]:
    found = effect(table, direction.weights)
    shown = found is not None and direction.low <= found.mean <= direction.high
    return {"statement": direction.statement, "effect": None if found is None else found.mean, "shown": shown}


def _shown(found: Effect | None) -> dict[str, Any] | None:
    if found is None:
        return None
    content = asdict(found)
    numbers = {key: round(content[key], 5) for key in ("mean", "low", "high")}
    return {**numbers, "seeds": found.seeds, "domains": {d: round(x, 5) for d, x in found.domains.items()}}


def _finite(bound: float) -> float | None:
    """JSON has no infinity."""
    return bound if abs(bound) < float("inf") else None


def _curves(runs: list[Run], work: Path) -> dict[str, list[float]]:
    """Means over seeds by step, of what a fit logs of its domains."""
    logged = [steps(work / run.name) for run in runs if (work / run.name / "metrics.csv").exists()]
    names = [f"{curve}/{domain}" for curve in CURVES for domain in DOMAINS]
    found = {}
    for name in names:
        series = [[row[name] for row in rows] for rows in logged if rows and name in rows[0]]
        if series and len({len(one) for one in series}) == 1:
            found[name] = [round(float(x), 5) for x in np.mean(series, axis=0)]
    return found


def _run(run: Run, work: Path, tables: Mapping[str, Table]) -> dict[str, Any]:
    """One run: its commands, and its means by domain."""
    records = json.loads(record_file(run, work).read_text())
    figures = {}
    if run.group:
        seed = None if "/weights-" in run.name else run.seed
        figures = {d: {m: round(float(tables[m][run.group][d][seed].mean()), 4) for m in MEASURES} for d in run.domains}
    return {
        "group": run.group,
        "seed": run.seed,
        "tokens": tokens(run, work),
        "seconds": [round(record["seconds"], 1) for record in records],
        "planned_seconds": round(run.seconds, 1),
        "commands": [record["command"] for record in records],
        "figures": figures,
    }


def _seconds(run: Run, work: Path) -> float:
    return sum(record["seconds"] for record in json.loads(record_file(run, work).read_text()))


def _making(run: Run, work: Path) -> float:
    """Seconds until the student is there: training, and the teachers' samples where it needs them; no measurement."""
    own = sum(record["seconds"] for record in json.loads(record_file(run, work).read_text())[:-1])
    for name in run.needs:
        file = work / name / "record.json"
        if name.startswith("samples/") and file.exists():
            own += sum(record["seconds"] for record in json.loads(file.read_text()))
    return float(own)


def _facts(design: Design) -> dict[str, Any]:
    mode = design.mode
    return {
        "steps": mode.steps,
        "test_prompts": mode.test_prompts,
        "val_prompts": mode.val_prompts,
        "runs": len(design.runs),
        "planned_seconds": round(sum(run.seconds for run in design.runs)),
    }


def _machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
