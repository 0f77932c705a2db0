"""What an evaluation says at its end: the summary with everything that produced it, and a table."""

import hashlib
import platform
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from rich import box
from rich.table import Table

from gopd_callbacks.grading import LOUD_SHARE
from gopd_callbacks.sample_store import prompt_hash
from gopd_lightning.verifiers.version import grader_version

_PACKAGES = ("gopd-lightning", "torch", "transformers", "lightning", "math-verify")


def summary(
    produced_by: dict[str, Any], figures: Mapping[str, Any], files: Mapping[str, str], name: str
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        produced_by: Model, sampling, seed, engine, verifiers and prompts.
        figures: By data set, figures by name (see `EvaluationMetrics.figures`).
        files: By data set, the file with its samples.
        name: Name of the folder.
    """
    verifiers, prompts = produced_by.pop("verifiers"), produced_by.pop("prompts")
    problems = Counter(prompt.dataset for prompt in prompts)
    return {
        "name": name,
        **produced_by,
        "graders": {
            domain: {"class_path": f"{type(one).__module__}.{type(one).__qualname__}", "version": grader_version(one)}
            for domain, one in verifiers.items()
        },
        "sets": {
            dataset: {
                "file": files[dataset],
                "prompts": _digest(prompt for prompt in prompts if prompt.dataset == dataset),
                "problems": problems[dataset],
                "samples": produced_by["sampling"]["n"],
                "figures": {key: figure.as_dict() for key, figure in figures[dataset].items()},
            }
            for dataset in files
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "command": sys.argv,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _digest(prompts: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for prompt in prompts:
        digest.update(prompt_hash(prompt).encode())
    return digest.hexdigest()


def results_table(report: Mapping[str, Any]) -> Table:
    """The summary's figures as a table: a row a data set with its n problems, 95 % intervals in brackets.

    Args:
        report: What `summary` gave.
    """
    sets: Mapping[str, Any] = report["sets"]
    samples = report["sampling"]["n"]
    names = [f"avg@{samples}", f"pass@{samples}", f"maj@{samples}"] if samples > 1 else ["avg@1"]
    names = [name for name in names if any(name in entry["figures"] for entry in sets.values())]
    out = Table(
        title=f"{report['name']}: % with 95 % interval over problems",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    out.add_column("set", no_wrap=True)
    for title in ("n", *names, "tokens", "truncated"):
        out.add_column(title, justify="right", no_wrap=True)
    for dataset, entry in sorted(sets.items()):
        figures = entry["figures"]
        cells = [_cell(figures.get(name), 100, ".1f") for name in names]
        length, truncated = _cell(figures["length"], 1, ",.0f"), _cell(figures["truncated"], 100, ".1f")
        out.add_row(dataset, str(entry["problems"]), *cells, length, truncated)
    return out


def ungraded(report: Mapping[str, Any]) -> list[str]:
    """A line for every data set whose grader failed, and louder where that is more than 1 % of the samples.

    Args:
        report: What `summary` gave.
    """
    lines = []
    for dataset, entry in report["sets"].items():
        share = entry["figures"].get("crashed", {}).get("mean") or 0.0
        loud = "DO NOT TRUST THIS SET: " if share > LOUD_SHARE else ""
        if share:
            lines.append(
                f"{loud}{dataset}: the grader failed on {share:.2%} of the samples, counted as wrong (see `crashed`)"
            )
    return lines


def _cell(figure: Mapping[str, float | None] | None, scale: float, form: str) -> str:
    """Mean above its interval; a dash for what is not defined."""
    if figure is None:
        return "-"
    mean, low, high = (
        "-" if figure[key] is None else format(scale * float(figure[key] or 0), form) for key in ("mean", "low", "high")
    )
    return f"{mean}\n[{low}, {high}]"
