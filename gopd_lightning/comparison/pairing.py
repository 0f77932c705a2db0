"""What several runs have in common: the data sets and problems that all of them answered, and what else differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gopd_lightning.comparison.runs import Problem, Run
from gopd_lightning.errors import InputError

Answers = Sequence[Mapping[str, Problem]]
"""The problems of one data set by id, for each run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedSet:
    """The problems of one data set that every run answered.

    Attributes:
        name: The data set.
        means: Mean reward of the samples, float64 [problems, runs].
        firsts: Whether sample 0 is right (reward 1), bool [problems, runs].
    """

    name: str
    means: Tensor
    firsts: Tensor


def pair(runs: Sequence[Run]) -> tuple[list[PairedSet], list[str]]:
    """Bring the runs' problems together.

    Args:
        runs: The runs.

    Returns:
        The data sets that every run has, with at least two problems each, and warnings of one line each.

    Raises:
        InputError: There is none, a file is broken, or one name stands for different problems.
    """
    warnings = _settings(runs)
    common, lonely = _common_sets(runs)
    warnings += lonely
    sets = []
    for name in common:
        answers = [run.problems(name) for run in runs]
        ids, said = _common_problems(name, runs, answers)
        warnings += said
        if len(ids) < 2:
            warnings.append(f"{name}: left out: an interval over problems needs two or more, {len(ids)} in common")
            continue
        warnings += _samples(name, runs, answers, ids)
        sets.append(_paired(name, ids, answers))
    if not sets:
        raise InputError("the runs have no data set in common with two problems or more: nothing to compare")
    return sets, warnings


def _paired(name: str, ids: Sequence[str], answers: Answers) -> PairedSet:
    means = [[of_run[identity].mean for of_run in answers] for identity in ids]
    firsts = [[of_run[identity].rewards[0] >= 1 for of_run in answers] for identity in ids]
    return PairedSet(name=name, means=torch.tensor(means, dtype=torch.float64), firsts=torch.tensor(firsts))


def _common_sets(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The data sets of all runs, and a warning for each that some lack."""
    every = list(dict.fromkeys(name for run in runs for name in run.sets))
    missing = {name: [run.name for run in runs if name not in run.sets] for name in every}
    warnings = [f"{name}: left out: {', '.join(of)} did not answer it" for name, of in missing.items() if of]
    return [name for name in every if not missing[name]], warnings


def _common_problems(name: str, runs: Sequence[Run], answers: Answers) -> tuple[list[str], list[str]]:
    """Ids of the problems that all runs answered, in order, and warnings about the others.

    Raises:
        InputError: Most ids stand for another problem in one of the runs.
    """
    ids = sorted(set(answers[0]).intersection(*answers[1:]))
    warnings = []
    if left_out := len(set().union(*answers)) - len(ids):
        warnings.append(f"{name}: {left_out} problems left out, which some run did not answer; {len(ids)} compared")
    other: set[str] = set()
    for run, of_run in zip(runs[1:], answers[1:], strict=True):
        differing = [i for i in ids if of_run[i].identity != answers[0][i].identity]
        if 2 * len(differing) > len(ids):
            raise InputError(
                f"{name}: {run.folder} and {runs[0].folder} are not about the same problems: "
                f"{len(differing)} of {len(ids)} ids have another answer, such as {differing[0]}"
            )
        other |= set(differing)
        if prompts := sum(of_run[i].prompt != answers[0][i].prompt for i in ids if i not in differing):
            warnings.append(
                f"{name}: {run.name} read other prompts than {runs[0].name} on {prompts} of {len(ids)} problems "
                "(chat template or instruction): the difference is that of model and prompt together"
            )
    if other:
        warnings.append(f"{name}: {len(other)} problems left out, whose answers differ: {', '.join(sorted(other)[:5])}")
    return [i for i in ids if i not in other], warnings


def _samples(name: str, runs: Sequence[Run], answers: Answers, ids: Sequence[str]) -> list[str]:
    """A warning where runs have different numbers of samples."""
    counts = [sorted({len(of_run[identity].rewards) for identity in ids}) for of_run in answers]
    if all(len(found) == 1 and found == counts[0] for found in counts):
        return []
    said = ", ".join(f"{run.name} {'-'.join(map(str, found))}" for run, found in zip(runs, counts, strict=True))
    return [f"{name}: samples a problem differ ({said}): fine, means over each problem's samples are compared"]


def _settings(runs: Sequence[Run]) -> list[str]:
    """Warnings about sampling and graders that are not the first run's."""
    warnings = []
    for run in runs[1:]:
        for what, why in (("sampling", "is part of the difference"), ("graders", "may be part of the difference")):
            first, other = _mapping(runs[0], what), _mapping(run, what)
            keys = [key for key in dict.fromkeys([*first, *other]) if first.get(key) != other.get(key)]
            keys = [key for key in keys if key != "n"]  # told by data set
            if keys:
                said = ", ".join(f"{key} {_short(first.get(key))} and {_short(other.get(key))}" for key in keys)
                warnings.append(f"{what} of {runs[0].name} and {run.name} differ and {why}: {said}")
    return warnings


def _mapping(run: Run, key: str) -> Mapping[str, object]:
    found = run.summary.get(key)
    return found if isinstance(found, dict) else {}


def _short(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("version", value)
    return "none" if value is None else f"{value}"[:40]
