"""E4: what a step costs with 2 ranks instead of 1, with more rows, and with longer responses.

A small random model (four layers of SmolLM2-135M's shape), full-vocabulary KL, responses of one imposed length.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from growth_fit import HIDDEN, INNER, LAYERS, PROMPT, WORDS, model
from side_by_side import row, write
from turns import read

WARM = {"rows": 8, "length": 64}  # runs first in every process, and is not looked at
ROWS = [{"rows": rows, "length": 64} for rows in (8, 16, 32, 64)]
LENGTHS = [{"rows": 4, "length": length} for length in (64, 128, 256, 512, 1024, 2048)]
RANKS = {"rows": 32, "length": 64}
SLACK = 0.15  # that the longest may cost beyond what its attention explains
Point = dict[str, Any]


def fits(shapes: Sequence[dict[str, int]], ranks: int) -> list[Point]:
    """Steps of some shapes in a process a rank; all ranks together have the threads that one would have."""
    threads = max(1, torch.get_num_threads() // ranks)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    script = str(Path(__file__).with_name("growth_fit.py"))
    command = [sys.executable, *launch, script, json.dumps({"ranks": ranks, "shapes": [WARM, *shapes]})]
    found = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    ) as process:
        assert process.stdout is not None
        for point in read(process.stdout):
            print(f"{ranks} rank(s), {point['rows']} x {point['length']}: {point['seconds']:.2f} s", flush=True)
            found.append(point)
    if process.returncode:
        raise RuntimeError(f"{script} ended with status {process.returncode}")
    return found[1:]


def line(points: Sequence[Point]) -> tuple[float, float, float]:
    """Slope (s a token), intercept (s) and R squared of seconds over response tokens."""
    x, y = (numpy.array([point[key] for point in points]) for key in ("tokens", "seconds"))
    slope, intercept = numpy.polyfit(x, y, 1)
    rest = ((y - slope * x - intercept) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    return float(slope), float(intercept), float(1 - rest)


def excess(points: Sequence[Point]) -> float:
    """Share that the last point lies above the line through the others."""
    slope, intercept, _ = line(points[:-1])
    return float(points[-1]["seconds"] / (slope * points[-1]["tokens"] + intercept) - 1)


def flops(length: int) -> float:
    """Forward operations a response token, attention included: each token looks at half of its sequence."""
    head_share = 3 / 9  # key and value heads a query head
    block = 2 * HIDDEN * (2 * HIDDEN * (1 + head_share) + 3 * INNER)
    attention = 4 * HIDDEN * (PROMPT + length / 2)
    return LAYERS * (block + attention) + 2 * HIDDEN * WORDS


def explained(points: Sequence[Point]) -> float:
    """What attention alone lets the last point lie above the line through the others."""
    return excess([point | {"seconds": point["tokens"] * flops(point["length"])} for point in points])


def summary(rows: Sequence[Point], lengths: Sequence[Point], two: Point) -> list[dict[str, Any]]:
    one = next(point for point in rows if point["rows"] == RANKS["rows"])
    allowed = explained(lengths) + SLACK
    return [
        row("E4", "8 to 64 rows: R2 of seconds over tokens", line(rows)[2], "", ">= 0.99"),
        row("E4", "64 to 2048 tokens: R2 of seconds over tokens", line(lengths)[2], "", ">= 0.99"),
        row("E4", "2048 tokens: above the line through 64 to 1024", excess(lengths), "share", f"<= {allowed:.2f}"),
        row("E4", "2048 tokens: above that line by attention's operations", explained(lengths), "share"),
        row("E4", "2 ranks against 1 with the same cores, seconds", two["seconds"] / one["seconds"], "x"),
        row("E4", "2 ranks: summing gradients, of the step", two["sum_seconds"] / two["seconds"], "share"),
    ]


def main() -> None:
    for name, seed in (("student", 1), ("teacher", 2)):
        model(name, seed)
    rows = fits(ROWS, ranks=1)
    two = fits([RANKS], ranks=2)[0]
    lengths = fits(LENGTHS, ranks=1)
    found = summary(rows, lengths, two)
    lines = {
        "8 to 64 rows of 64 tokens": [[p["tokens"], p["seconds"]] for p in rows],
        "4 rows of 64 to 2048 tokens": [[p["tokens"], p["seconds"]] for p in lengths],
        "2 ranks, 32 rows of 64 tokens": [[two["tokens"], two["seconds"]]],
    }
    plot = {"title": "Seconds of a step", "x": "response tokens", "y": "seconds", "log": True, "lines": lines}
    content = {"summary": found, "plot": plot, "rows": rows, "lengths": lengths, "two_ranks": two}
    print(write("growth", content))


if __name__ == "__main__":
    main()
