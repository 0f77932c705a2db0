"""What a finished run left: graded answers prompt by prompt, curves by step, tokens."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.commands import Command, Run
from study.plan import GROUP, PER_DOMAIN

MEASURES = ("sampled", "greedy", "length", "entropy")
Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """How one model answered the prompts of one domain; every array is [prompts].

    Attributes:
        sampled: Share of right answers at temperature 1.
        greedy: Whether the greedy answer is right.
        length: Mean tokens of an answer at temperature 1.
        entropy: Mean surprisal of an answer's tokens at temperature 1, in nats: it estimates the policy's entropy.
    """

    sampled: Values
    greedy: Values
    length: Values
    entropy: Values


def found(command: Command) -> Path | None:
    """The result of a command; None while it is not there."""
    root = Path(*command.result.parts[: next((i for i, p in enumerate(command.result.parts) if "*" in p), None)])
    if root == command.result:
        return root if root.exists() else None
    return next(iter(sorted(root.glob(str(command.result.relative_to(root))))), None)


def answers(run: Run, domain: str) -> Answers:
    """The graded answers of a measured run.

    Args:
        run: A finished run whose last command is a measurement.
        domain: One that it was measured on.
    """
    folder = run.commands[-1].result.parents[1]
    files = {file.parent.name.startswith("greedy-"): file for file in folder.glob(f"*/{domain}.jsonl")}
    sampled, greedy = (_by_prompt(files[is_greedy]) for is_greedy in (False, True))
    return Answers(
        sampled=_means(sampled, "reward"),
        greedy=_means(greedy, "reward"),
        length=_means(sampled, "tokens"),
        entropy=-_sums(sampled, "logprob") / _sums(sampled, "tokens"),
    )


def _by_prompt(file: Path) -> list[list[dict[str, Any]]]:
    """The samples of each prompt, in the file's order, which is the data set's."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for line in file.read_text().splitlines():
        row = json.loads(line)
        grouped.setdefault(row["id"], []).append(row)
    return list(grouped.values())


def _means(prompts: list[list[dict[str, Any]]], key: str) -> Values:
    return np.array([sum(row[key] for row in rows) / len(rows) for rows in prompts], dtype=np.float64)


def _sums(prompts: list[list[dict[str, Any]]], key: str) -> Values:
    return np.array([sum(row[key] for row in rows) for rows in prompts], dtype=np.float64)


def steps(folder: Path) -> list[dict[str, float]]:
    """The rows of a fit's metrics.csv, only what is there in each.

    Args:
        folder: The run folder.
    """
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def tokens(run: Run, work: Path) -> float:
    """Response tokens that were generated to train, by the student or by its teachers.

    Args:
        run: A finished run.
        work: The folder of all runs.
    """
    samples = [name for name in run.needs if name.startswith("samples/")]
    if samples and "/sft-" in f"/{run.name}":
        files = (work / samples[0]).glob("by-*/*/summary.json")
        return sum(_sampled_tokens(file) for file in files)
    file = work / run.name / "metrics.csv"
    responses = PER_DOMAIN * (GROUP if run.name.startswith("experts/") else 1)
    return sum(_step_lengths(row) for row in steps(file.parent)) * responses if file.exists() else 0.0


def _sampled_tokens(summary: Path) -> float:
    sets = json.loads(summary.read_text())["sets"].values()
    return sum(one["figures"]["length"]["mean"] * one["problems"] * one["samples"] for one in sets)


def _step_lengths(row: dict[str, float]) -> float:
    """Mean lengths of a step's responses, added up over domains."""
    return sum(value for name, value in row.items() if name.startswith("length/"))


def finished(runs: tuple[Run, ...], work: Path) -> Iterator[Run]:
    """The runs that have their record.

    Args:
        runs: All runs.
        work: The folder of all runs.
    """
    return (run for run in runs if record_file(run, work).exists())


def record_file(run: Run, work: Path) -> Path:
    """Where it stands that a run has finished, with its commands and seconds."""
    return work / run.name / "record.json"
