"""E1: whole steps of on-policy distillation against TRL, trainer against trainer.

SmolLM2-135M as student and teacher, prompts of about 64 tokens with the same skewed responses of up to 256 imposed on
both sides, full-vocabulary reverse KL. Each side is a process of its own; they take turns, a step each, for as many
rounds as a part's seconds allow. gopd at lambda 1.25, with a third model, runs against TRL at lambda 1, as TRL has
nothing else. `make bench` takes 8 prompts, to see five rounds; `--prompts 32` is the size of a real step, and its
result has a file of its own. The sampled estimator runs on shorter responses.

    step.py [--prompts 32] [--rounds 1] [float32 | bfloat16 | sampled ...]    what is not named is kept
"""

import argparse
import json
import statistics
import time
from typing import Any

from models import smollm2
from side_by_side import REPEATS, RESULTS, row, write
from turns import Side
from workload import workload

ROWS = 8  # of a micro-batch of TRL, as is its default: 32 of them need 35 GB
LONGEST = {"float32": 256, "bfloat16": 256, "sampled": 128}  # response tokens
SHORT = 32  # longest response of every process's first step
SECONDS = {"float32": 340, "bfloat16": 230, "sampled": 80}  # of a part in `make bench`: no round ends later
SCALES = {"float32": (1.0, 1.25), "bfloat16": (1.0, 1.25), "sampled": (1.0,)}
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "sampled": 1e-3}
PARTS = tuple(TOLERANCE)
Steps = list[dict[str, Any]]


def settings_of(part: str, prompts: int) -> dict[str, Any]:
    """What both sides are told."""
    return {
        "prompts": prompts,
        "longest": LONGEST[part],
        "rows": min(ROWS, prompts),
        "bf16": part == "bfloat16",
        "estimator": "sampled" if part == "sampled" else "full",
    }


def race(part: str, settings: dict[str, Any], rounds: int | None) -> dict[str, Any]:
    """Steps of all sides of one part, in turns.

    The first step of each process is short: it warms up, and is what is compared in numbers.

    Args:
        part: One of `PARTS`.
        settings: What both sides are told.
        rounds: How many; None takes as many as the part's seconds allow, five at most and one at least.

    Returns:
        The settings, each side's first step, and the later steps by side.
    """
    began, sides = time.monotonic(), {}
    try:
        sides["TRL"] = Side(f"TRL {part}", "step_trl.py", settings)
        for scale in SCALES[part]:
            name = f"gopd {scale}"
            sides[name] = Side(f"gopd {part} {scale}", "step_gopd.py", settings | {"reward_scale": scale})
        first = {name: said(part, f"{name}, first", side.step(SHORT)) for name, side in sides.items()}
        steps: dict[str, Steps] = {name: [] for name in sides}
        took = 0.0
        for done in range(rounds or REPEATS):
            round_began = time.monotonic()
            if rounds is None and done and round_began + took > began + SECONDS[part]:
                break
            for name, side in sides.items():
                steps[name].append(said(part, name, side.step(settings["longest"])))
            took = time.monotonic() - round_began
    finally:
        for side in sides.values():
            side.end()
    return {"settings": settings, "first": first, "steps": steps}


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
    ours, theirs = first["gopd 1.0"], first["TRL"]
    return {key: abs(ours[key] - theirs[key]) / abs(theirs[key]) for key in keys}


def summary(part: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one part; a ratio is one of medians of steps that took turns."""
    peer = "IWOPDTrainer" if part == "sampled" else "DistillationTrainer"
    steps, settings = found["steps"], found["settings"]
    seconds = {name: median(each, "seconds") for name, each in steps.items()}
    peak = {name: max(step["peak_mb"] for step in each) for name, each in steps.items()}
    rows = []
    for scale in SCALES[part]:
        name, goal = f"gopd {scale}", 3 if scale == 1.0 else 2
        what = f"{part}, {settings['prompts']} prompts, lambda {scale:g} against TRL's {peer}"
        rows.append(row("E1", f"{what}, tokens/s", seconds["TRL"] / seconds[name], "x", f">= {goal}"))
        rows.append(row("E1", f"{what}, peak memory", peak[name] / peak["TRL"], "share", "<= 0.3333"))
    for key, difference in agreement(part, found["first"]).items():
        what = f"{part}, {key} of the first step, difference"
        rows.append(row("E1", what, difference, "share", f"<= {TOLERANCE[part]}"))
    tokens = steps["TRL"][0]["tokens"]
    rows += [row("E1", f"{part}, {name}", tokens / taken, "tok/s") for name, taken in seconds.items()]
    return rows


def plot(parts: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a step, by side."""
    bars: dict[str, dict[str, list[float]]] = {}
    for part, found in parts.items():
        for name, steps in found["steps"].items():
            bars.setdefault(name, {})[part] = [median(steps, phase) for phase in ("generation", "update")]
    return {"title": "One step, SmolLM2-135M (dark: generation, light: update)", "y": "seconds", "bars": bars}


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all when none is named")
    parser.add_argument("--prompts", type=int, default=ROWS, help="of a step")
    parser.add_argument("--rounds", type=int, help="how many; by default as many as the seconds of a part allow")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    for model in ("student", "teacher", "reference"):
        smollm2(model)
    name = "step" if asked.prompts == ROWS else f"step_{asked.prompts}"
    file = RESULTS / f"{name}.json"
    parts = json.loads(file.read_text())["parts"] if file.exists() else {}
    for part in asked.parts or PARTS:
        settings = settings_of(part, asked.prompts)
        workload(settings["prompts"], settings["longest"])
        parts[part] = race(part, settings, asked.rounds)
        rows = [one for other in PARTS if other in parts for one in summary(other, parts[other])]
        write(name, {"summary": rows, "plot": plot(parts), "parts": parts})
        for found in summary(part, parts[part]):
            print(f"{found['what']}: {found['figure']} {found['unit']} (goal {found['goal']})", flush=True)


if __name__ == "__main__":
    main()
