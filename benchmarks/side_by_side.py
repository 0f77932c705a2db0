"""Timing ways of doing the same work, in turns, so that a busy machine slows all of them alike."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).with_name("results")
REPEATS = 5


def machine() -> dict[str, Any]:
    """Facts that a figure cannot be read without, the matrix rates of this very moment among them."""
    facts = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "machine": platform.machine()}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    rates = {f"gemm_{str(dtype)[6:]}_gflops": gemm_rate(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return {**facts, **versions, **rates, "load": round(os.getloadavg()[0], 1)}


def gemm_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """Best of five square matrix products, in 1e9 operations a second."""
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    seconds = min(seconds_of(lambda: a @ b) for _ in range(5))
    return round(2 * size**3 / seconds / 1e9, 1)


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Seconds of every way, `repeats` times each, one after the other in turns; each runs once before to warm up.

    Args:
        ways: What to time, by name.
        repeats: Times that each is run.
    """
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(seconds_of(way))
    return found


def medians(found: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each way's seconds."""
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def row(case: str, what: str, figure: float, unit: str, goal: str | None = None) -> dict[str, Any]:
    """A row of the summary, as `write` takes them in a list under the key `summary`.

    Args:
        case: Name of the case, such as K1.
        what: What was measured, short, unique within the case.
        figure: The figure that the goal speaks of.
        unit: x (a ratio), s, MB, share, tok/s, ...
        goal: ">= NUMBER" or "<= NUMBER"; None where the row is only shown.
    """
    return {
        "case": case,
        "what": what,
        "figure": float(f"{figure:.4g}"),
        "unit": unit,
        "goal": goal,
        "met": None if goal is None else reaches(figure, goal),
    }


def reaches(figure: float, goal: str) -> bool:
    """Whether a figure is where the goal wants it.

    Raises:
        ValueError: The goal is not ">= NUMBER" or "<= NUMBER".
    """
    relation, _, limit = goal.partition(" ")
    if relation not in (">=", "<="):
        raise ValueError(f"a goal of {goal!r}: write '>= NUMBER' or '<= NUMBER'")
    return figure >= float(limit) if relation == ">=" else figure <= float(limit)


def write(name: str, content: Mapping[str, Any]) -> Path:
    """Write a result whole or not at all, with the facts of the machine."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps({**content, "machine": machine()}, indent=1) + "\n")
    os.replace(temporary, file)
    return file


def seconds_of(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began
