"""E1: whole steps of on-policy distillation against TRL, trainer against trainer.

SmolLM2-135M as student and teacher, 32 prompts of about 64 tokens with the same skewed responses of up to 256 imposed
on both sides, full-vocabulary reverse KL. Each side is a process of its own; they take turns, gopd a step before and a
step after each of TRL's, for as many rounds as a part's seconds allow. gopd at lambda 1.25, with a third model, runs
against TRL at lambda 1, as it has nothing else. The sampled estimator runs on fewer and shorter responses.

    step.py [--quick] [float32 | bfloat16 | sampled ...]     parts that are not named are kept from the last run
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from models import smollm2
from side_by_side import RESULTS, row, write
from turns import Side
from workload import workload

LOGITS_ROWS = 8  # of a micro-batch of IWOPDTrainer, which keeps all logits several times
REST_GB = 9.5  # what TRL takes beside its activations (1 GB a row of 68 + 256 tokens), gopd and the system
SIZES = {"float32": (32, 256), "bfloat16": (32, 256), "sampled": (16, 128), "quick": (8, 64)}  # prompts, longest
SHORT = 32  # longest response of every process's first step
ROUNDS = 3  # at most, of a TRL step between two of gopd's
SECONDS = {"float32": 420, "bfloat16": 330, "sampled": 120}  # of a part: no round begins that would end later
SCALES = {"float32": {1.0: 0.6, 1.25: 1.0}, "bfloat16": {1.0: 0.6, 1.25: 1.0}, "sampled": {1.0: 1.0}}  # and by when
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "sampled": 1e-3}
PARTS = tuple(TOLERANCE)
Steps = list[dict[str, Any]]


def settings_of(part: str, quick: bool) -> dict[str, Any]:
    """What both sides are told."""
    prompts, longest = SIZES["quick" if quick else part]
    rows = LOGITS_ROWS if part == "sampled" else trl_rows(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return {
        "prompts": prompts,
        "longest": longest,
        "rows": min(rows, prompts),
        "bf16": part == "bfloat16",
        "estimator": "sampled" if part == "sampled" else "full",
    }


def trl_rows(memory: int) -> int:
    """Rows of TRL's micro-batch: as many as fit into a machine's memory (bytes) beside gopd, 8 at least."""
    return next((rows for rows in (32, 16) if rows + REST_GB < memory / 1e9), 8)


def race(part: str, settings: dict[str, Any], keep: Callable[[dict[str, Any]], None]) -> None:
    """All steps of one part. The first of each process is short: it warms up, and is what is compared in numbers.

    Args:
        part: One of `PARTS`.
        settings: What both sides are told.
        keep: Gets what was found so far, each time that a lambda is done.
    """
    began = time.monotonic()
    trl = Side(f"TRL {part}", "step_trl.py", settings)
    try:
        found: dict[str, Any] = {"settings": settings, "first": {"trl": said(part, "TRL, first", trl.step(SHORT))}}
        for scale, share in SCALES[part].items():
            name = f"gopd {scale}"
            gopd = Side(f"gopd {part} {scale}", "step_gopd.py", settings | {"reward_scale": scale})
            try:
                found["first"][name] = said(part, f"{name}, first", gopd.step(SHORT))
                until = began + share * SECONDS[part]
                found[name], found[f"trl beside {name}"] = alternate(part, name, gopd, trl, settings["longest"], until)
            finally:
                gopd.end()
            keep(found)
    finally:
        trl.end()


def alternate(part: str, name: str, gopd: Side, trl: Side, longest: int, until: float) -> tuple[Steps, Steps]:
    """Steps of gopd and of TRL: one of gopd's before and one after each of TRL's; one round at least."""
    ours: Steps = []
    theirs: Steps = []
    took = 0.0
    while not theirs or (len(theirs) < ROUNDS and time.monotonic() + took < until):
        began = time.monotonic()
        ours.append(said(part, name, gopd.step(longest)))
        theirs.append(said(part, "TRL", trl.step(longest)))
        ours.append(said(part, name, gopd.step(longest)))
        took = time.monotonic() - began
    return ours, theirs


def said(part: str, name: str, step: dict[str, Any]) -> dict[str, Any]:
    """Show a step.

    Raises:
        RuntimeError: It generated other tokens than were imposed.
    """
    if not step["imposed"]:
        raise RuntimeError(f"{name} ({part}) generated other tokens than it was told to")
    seconds = f"{step['seconds']:.1f} s, {step['generation']:.1f} of it generation"
    print(f"{part}, {name}: {seconds}, {step['tokens']} tokens, {step['peak_mb']:.0f} MB", flush=True)
    return step


def median(steps: Steps, key: str) -> float:
    return statistics.median(step[key] for step in steps)


def agreement(part: str, first: dict[str, Any]) -> dict[str, float]:
    """Relative differences of the first step's figures, gopd at lambda 1 against TRL.

    IWOPDTrainer divides its loss by the tokens of the data set, not by those it generated, so that only the mean
    log-ratio can be compared there.
    """
    keys = ("log_ratio",) if part == "sampled" else ("loss", "gradient")
    ours, theirs = first["gopd 1.0"], first["trl"]
    return {key: abs(ours[key] - theirs[key]) / abs(theirs[key]) for key in keys}


def summary(part: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one part; a ratio is one of medians of steps that took turns."""
    peer = "IWOPDTrainer" if part == "sampled" else "DistillationTrainer"
    theirs = trl_steps(found)
    peak = max(step["peak_mb"] for step in theirs)
    rows = []
    for scale, goal in ((1.0, 3), (1.25, 2)):
        name = f"gopd {scale}"
        if name not in found:
            continue
        what = f"{part}, lambda {scale:g} against TRL's {peer}"
        ratio = median(found[f"trl beside {name}"], "seconds") / median(found[name], "seconds")
        share = max(step["peak_mb"] for step in found[name]) / peak
        rows.append(row("E1", f"{what}, tokens/s", ratio, "x", f">= {goal}"))
        small = f"{what} with {found['settings']['rows']} rows at a time, peak memory"
        rows.append(row("E1", small, share, "share", "<= 0.3333"))
    for key, difference in agreement(part, found["first"]).items():
        what = f"{part}, {key} of the first step, difference"
        rows.append(row("E1", what, difference, "share", f"<= {TOLERANCE[part]}"))
    tokens = theirs[0]["tokens"]
    rows.append(row("E1", f"{part}, gopd", tokens / median(found["gopd 1.0"], "seconds"), "tok/s"))
    rows.append(row("E1", f"{part}, TRL", tokens / median(theirs, "seconds"), "tok/s"))
    return rows


def trl_steps(found: dict[str, Any]) -> Steps:
    """All measured steps of TRL's in one part."""
    return [step for name, steps in found.items() if name.startswith("trl beside") for step in steps]


def plot(parts: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step, by side."""
    bars: dict[str, dict[str, list[float]]] = {"TRL": {}, "gopd, lambda 1": {}, "gopd, lambda 1.25": {}}
    for part, found in parts.items():
        sides = (trl_steps(found), found["gopd 1.0"], found.get("gopd 1.25"))
        for name, steps in zip(bars, sides, strict=True):
            if steps:
                bars[name][part] = [median(steps, phase) for phase in ("generation", "update")]
    title = "One step, SmolLM2-135M (dark: generation, light: update)"
    return {"title": title, "y": "seconds", "bars": {name: values for name, values in bars.items() if values}}


def earlier() -> dict[str, Any]:
    """The parts of the last run."""
    file = RESULTS / "step.json"
    return dict(json.loads(file.read_text())["parts"]) if file.exists() else {}


def main() -> None:
    quick = "--quick" in sys.argv
    asked = [part for part in PARTS if part in sys.argv] or list(PARTS)
    for model in ("student", "teacher", "reference"):
        smollm2(model)
    parts = {} if quick else earlier()
    name = "step_quick" if quick else "step"

    def keep(part: str, found: dict[str, Any]) -> None:
        parts[part] = found
        rows = [one for other in PARTS if other in parts for one in summary(other, parts[other])]
        write(name, {"summary": rows, "plot": plot(parts), "parts": parts})

    for part in asked:
        settings = settings_of(part, quick)
        workload(settings["prompts"], settings["longest"])
        race(part, settings, partial(keep, part))
        for found in summary(part, parts[part]):
            print(f"{found['what']}: {found['figure']} {found['unit']} (goal {found['goal']})", flush=True)


if __name__ == "__main__":
    main()
