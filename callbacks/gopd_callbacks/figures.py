"""Reading the figures of a run by name, for the progress display and the plot."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Baselines = Mapping[str, Mapping[str, Mapping[str, float]]]

BY_DOMAIN = ("reward", "kl_teacher", "entropy", "length", "kl_reference", "truncated", "advantage")


def domains_of(names: Iterable[str]) -> list[str]:
    """The domains, and data sets with an accuracy, that metric names speak of, in order of the alphabet.

    Args:
        names: Metric names.
    """
    found = {domain for name in names for figure, _, domain in [name.partition("/")] if figure in BY_DOMAIN}
    return sorted(found | set(accuracy_names(names)))


def accuracy_names(names: Iterable[str]) -> dict[str, str]:
    """Data set -> the name of its `avg@k` metric at validation.

    Args:
        names: Metric names.
    """
    found = sorted(name for name in names if name.startswith("val/") and "/avg@" in name)
    return {name.removeprefix("val/").rpartition("/")[0]: name for name in found}


def read_baselines(folder: Path) -> Baselines:
    """Accuracies of base and teachers: model -> data set -> `avg@k` -> value; empty when not measured (yet).

    Args:
        folder: The run folder.
    """
    try:
        content: Any = json.loads((folder / "baselines.json").read_text())
    except (OSError, json.JSONDecodeError):  # decoration: a run must not stop over it
        return {}
    return content if isinstance(content, dict) else {}


def teacher_line(baselines: Baselines, dataset: str, figure: str) -> float | None:
    """Accuracy to beat on a data set: that of the domain of this name's teacher, else of the best teacher.

    Args:
        baselines: What `read_baselines` gave.
        dataset: Name of the data set.
        figure: `avg@k`.

    Returns:
        Accuracy in [0, 1], or None when no teacher was measured there.
    """
    lines = {name: by.get(dataset, {}).get(figure) for name, by in baselines.items() if name != "base"}
    known = {name: value for name, value in lines.items() if value is not None}
    return known.get(f"teacher:{dataset}", max(known.values(), default=None))


def base_line(baselines: Baselines, dataset: str, figure: str) -> float | None:
    """Accuracy of the base on a data set, or None when it was not measured.

    Args:
        baselines: What `read_baselines` gave.
        dataset: Name of the data set.
        figure: `avg@k`.
    """
    return baselines.get("base", {}).get(dataset, {}).get(figure)
