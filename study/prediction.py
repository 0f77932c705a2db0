"""How well the untrained target, sampled by `gopd_callbacks.TargetCurve`, says what the trained student will do."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from study.design import Design
from study.plan import DOMAINS, METHODS, SAMPLES
from study.reading import finished

COLUMNS = {"sampled": f"avg@{SAMPLES}", "greedy": "greedy"}


def predictions(design: Design, groups: Mapping[str, Any]) -> dict[str, Any]:
    """The targets' curves, beside every student that was trained for such a target.

    Args:
        design: All runs.
        groups: Figures of the measured groups.

    Returns:
        `curves` by run name; `pairs` of target and student; `distance`, the mean absolute difference in points by
        experts and column.
    """
    names = [run.name for run in finished(design.runs, design.mode.work) if run.name.startswith("curve/")]
    curves = {name: json.loads((design.mode.work / name / "target.json").read_text())["sets"] for name in names}
    pairs = [pair for name, curve in curves.items() for pair in _pairs(name.removeprefix("curve/"), curve, groups)]
    return {"curves": {name: _slim(curve) for name, curve in curves.items()}, "pairs": pairs, "distance": _far(pairs)}


def _slim(curve: Mapping[str, Any]) -> dict[str, Any]:
    """The means of a curve, accuracies in points."""
    return {
        domain: [
            {
                "scale": point["reward_scale"],
                **{column: 100 * point[key]["mean"] for column, key in COLUMNS.items()},
                "length": point["length"]["mean"],
                "entropy": point["entropy"]["mean"],
            }
            for point in points
        ]
        for domain, points in curve.items()
    }


def _pairs(kind: str, curve: Mapping[str, Any], groups: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for domain in DOMAINS:
        for point in _slim(curve)[domain]:
            for group in _trained_for(kind, point["scale"]):
                figures = groups.get(group, {}).get("figures", {}).get(domain)
                if figures is not None:
                    columns = {c: {"target": point[c], "student": figures[c]["mean"]} for c in COLUMNS}
                    yield {"experts": kind, "group": group, "scale": point["scale"], "domain": domain, **columns}


def _trained_for(kind: str, scale: float) -> list[str]:
    """Groups of students whose target this is."""
    corrected = kind.endswith("-corrected")
    experts = kind.removesuffix("-corrected")
    merged = [
        f"{experts}/{name}"
        for name, method in METHODS.items()
        if method.how in ("full", "sampled") and method.scale == scale and (method.corrected == corrected or scale == 1)
    ]
    return [f"single/{scale:g}", *merged] if experts == "early" else merged


def _far(pairs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean absolute difference by experts and over all; lambda 0 is left out, where nothing is to be learned."""
    kinds = dict.fromkeys(pair["experts"] for pair in pairs)
    chosen = {kind: [p for p in pairs if p["experts"] == kind and p["scale"]] for kind in kinds}
    chosen["all"] = [pair for pair in pairs if pair["scale"]]
    return {
        kind: {"pairs": len(found)} | {c: sum(_gap(p, c) for p in found) / len(found) for c in COLUMNS}
        for kind, found in chosen.items()
        if found
    }


def _gap(pair: Mapping[str, Any], column: str) -> float:
    return abs(float(pair[column]["target"]) - float(pair[column]["student"]))
