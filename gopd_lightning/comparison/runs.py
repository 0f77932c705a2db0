"""The folders that an evaluation leaves: `summary.json` and one JSONL a data set, read back and checked.

Text of responses is dropped line by line: only rewards and prompts are kept.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gopd_lightning.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem of a data set, as one run answered it.

    Attributes:
        prompt: What the model read, chat template included.
        rewards: Reward of each sample in [0, 1], by sample number.
    """

    prompt: str
    rewards: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean reward of the samples."""
        return math.fsum(self.rewards.values()) / len(self.rewards)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One evaluation: what `summary.json` says of it.

    Attributes:
        name: What tables call it.
        folder: Where it is.
        summary: The content of `summary.json`.
    """

    name: str
    folder: Path
    summary: Mapping[str, Any]

    @property
    def sets(self) -> list[str]:
        """Names of the data sets, in the order of the summary."""
        return list(self.summary["sets"])

    def problems(self, name: str) -> dict[str, Problem]:
        """The problems of one data set by id.

        Args:
            name: One of `sets`.

        Raises:
            InputError: The file is missing, broken or not that of a finished evaluation.
        """
        entry = self.summary["sets"][name]
        file = self.folder / entry["file"]
        if not file.is_file():
            raise InputError(f"there is no {file}, which {self.folder / 'summary.json'} names: copy it there too")
        problems = _problems(file)
        said = entry.get("problems", len(problems))
        if said != len(problems):
            raise InputError(f"{file} has {len(problems)} problems, summary.json says {said}: run gopd test again")
        return problems


def read_runs(folders: Sequence[str]) -> list[Run]:
    """The runs of some folders, each with a name of its own.

    Args:
        folders: Folders with a `summary.json`.

    Raises:
        InputError: No such folder, no summary in it, or one that is not an evaluation's.
    """
    summaries = [_summary(Path(folder)) for folder in folders]
    names = [str(summary.get("name") or Path(folder).name) for folder, summary in zip(folders, summaries, strict=True)]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    names = [name if name not in names[:i] else f"{name} ({names[:i].count(name) + 1})" for i, name in enumerate(names)]
    return [
        Run(name=name, folder=Path(folder), summary=summary)
        for name, folder, summary in zip(names, folders, summaries, strict=True)
    ]


def _summary(folder: Path) -> dict[str, Any]:
    file = folder / "summary.json"
    if not file.is_file():
        raise InputError(f"{folder} is not an evaluation: it holds no summary.json; gopd test writes one")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}): run gopd test again") from error
    sets = content.get("sets") if isinstance(content, dict) else None
    if not isinstance(sets, dict) or not all(isinstance(entry, dict) and "file" in entry for entry in sets.values()):
        raise InputError(f"{file} has no `sets` that name a file each: is it the summary of gopd test?")
    return dict(content)


def _problems(file: Path) -> dict[str, Problem]:
    prompts: dict[str, str] = {}
    rewards: dict[str, dict[int, float]] = {}
    for place, row in _rows(file):
        identity, sample, reward = _checked(row, place)
        prompts.setdefault(identity, str(row.get("prompt", "")))
        if sample in rewards.setdefault(identity, {}):
            raise InputError(f"{place}: sample {sample} of problem {identity} is there twice")
        rewards[identity][sample] = reward
    for identity, found in rewards.items():
        if 0 not in found:
            raise InputError(f"{file}: problem {identity} has no sample 0: run gopd test again")
    return {
        identity: Problem(prompt=prompt, rewards=dict(sorted(rewards[identity].items())))
        for identity, prompt in prompts.items()
    }


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a JSONL file, each with its place for error messages."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{place} is not JSON: run gopd test again") from error
            if not isinstance(row, dict):
                raise InputError(f"{place} is not a mapping: run gopd test again")
            yield place, row


def _checked(row: Mapping[str, Any], place: str) -> tuple[str, int, float]:
    """Id, sample number and reward of a row."""
    for name in ("id", "sample", "reward"):
        if row.get(name) is None:
            raise InputError(f"{place} has no {name}: `gopd test` writes id, sample and reward")
    sample, reward = row["sample"], row["reward"]
    if not isinstance(sample, int) or sample < 0:
        raise InputError(f"{place}: sample is {sample!r}: expected a whole number from 0 on")
    if not isinstance(reward, int | float) or not 0 <= reward <= 1:
        raise InputError(f"{place}: reward is {reward!r}: expected a number in [0, 1]")
    return str(row["id"]), sample, float(reward)
