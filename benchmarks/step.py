"""E1: whole steps of on-policy distillation against TRL, trainer against trainer.

SmolLM2-135M as student and teacher, 32 prompts of about 64 tokens with the same skewed responses of up to 256 imposed
on both sides, full-vocabulary reverse KL. Each side is a process of its own; they take turns, gopd a step before and a
step after each of TRL's. gopd at lambda 1.25, with a third model, runs against TRL at lambda 1, as it has nothing else.

    step.py [--quick] [float32 | bfloat16 | sampled ...]     parts that are not named are kept from the last run
"""

import json
import statistics
import sys
from typing import Any

from models import smollm2
from side_by_side import RESULTS, row, write
from turns import Side
from workload import workload

PROMPTS, LONGEST, TRL_ROWS = 32, 256, 16  # all 32 at a time take TRL past 16 GB
LOGITS_ROWS = 8  # IWOPDTrainer keeps all logits of its micro-batch, several times over
SHORT = 32  # longest response of every process's first step
ROUNDS = {1.0: 1, 1.25: 1}  # of a TRL step between two of gopd's, by lambda
SAMPLED_ROUNDS = {1.0: 1}
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "sampled": 1e-3}
PARTS = tuple(TOLERANCE)
Steps = list[dict[str, Any]]


def settings_of(part: str, quick: bool) -> dict[str, Any]:
    """What both sides are told."""
    rows = LOGITS_ROWS if part == "sampled" else TRL_ROWS
    return {
        "prompts": 8 if quick else PROMPTS,
        "longest": 64 if quick else LONGEST,
        "rows": 4 if quick else rows,
        "bf16": part == "bfloat16",
        "estimator": "sampled" if part == "sampled" else "full",
    }


def race(part: str, quick: bool) -> dict[str, Any]:
    """All steps of one part. The first of each process is short: it warms up, and is what is compared in numbers."""
    settings = settings_of(part, quick)
    trl = Side(f"TRL {part}", "step_trl.py", settings)
    try:
        found: dict[str, Any] = {"first": {"trl": said(part, "TRL, first", trl.step(SHORT))}}
        for scale, rounds in (SAMPLED_ROUNDS if part == "sampled" else ROUNDS).items():
            name = f"gopd {scale}"
            gopd = Side(f"gopd {part} {scale}", "step_gopd.py", settings | {"reward_scale": scale})
            try:
                found["first"][name] = said(part, f"{name}, first", gopd.step(SHORT))
                said(part, f"{name}, warms up", gopd.step(LONGEST))  # compiles for the real lengths
                found[name], found[f"trl beside {name}"] = alternate(part, name, gopd, trl, rounds)
            finally:
                gopd.end()
    finally:
        trl.end()
    return found


def alternate(part: str, name: str, gopd: Side, trl: Side, rounds: int) -> tuple[Steps, Steps]:
    """Steps of gopd and of TRL: one of gopd's before and one after each of TRL's."""
    ours: Steps = []
    theirs: Steps = []
    for _ in range(rounds):
        ours.append(said(part, name, gopd.step(LONGEST)))
        theirs.append(said(part, "TRL", trl.step(LONGEST)))
        ours.append(said(part, name, gopd.step(LONGEST)))
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
        rows.append(row("E1", f"{what}, peak memory", share, "share", "<= 0.3333"))
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
    title = f"One step, SmolLM2-135M, {PROMPTS} prompts (dark: generation, light: update)"
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
    settings = settings_of(asked[0], quick)
    workload(settings["prompts"], settings["longest"])
    parts = {} if quick else earlier()
    for part in asked:
        parts[part] = race(part, quick)
        rows = [found for name in PARTS if name in parts for found in summary(name, parts[name])]
        name = "step_quick" if quick else "step"
        file = write(name, {"summary": rows, "plot": plot(parts), "parts": parts, "settings": settings_of(part, quick)})
    for found in rows:
        print(f"{found['what']}: {found['figure']} {found['unit']} (goal {found['goal']})")
    print(file)


if __name__ == "__main__":
    main()
