"""What several runs have in common: the data sets and problems that all of them answered, and what else differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix

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
    every = len(set().union(*answers))
    if every > len(ids):
        warnings.append(f"{name}: left out: {every - len(ids)} of {every} problems, which some run did not answer")
    others: set[str] = set()
    for run, of_run in zip(runs[1:], answers[1:], strict=True):
        other = _other_problems(ids, answers[0], of_run)
        if 2 * len(other) > len(ids):
            raise InputError(
                f"{name}: {run.folder} and {runs[0].folder} are not about the same problems: {len(other)} of "
                f"{len(ids)} ids stand for another prompt, such as {min(other)}"
            )
        others |= other
        if reworded := sum(of_run[i].prompt != answers[0][i].prompt for i in set(ids) - other):
            warnings.append(
                f"{name}: {run.name} read {reworded} of {len(ids)} problems in another chat template or with another "
                f"instruction than {runs[0].name}: the difference is that of model and prompt together"
            )
    if others:
        said = ", ".join(sorted(others)[:5])
        warnings.append(
            f"{name}: left out: {len(others)} of {len(ids)} problems, whose ids stand for other prompts: {said}"
        )
    return [i for i in ids if i not in others], warnings


def _other_problems(ids: Sequence[str], first: Mapping[str, Problem], second: Mapping[str, Problem]) -> set[str]:
    """Ids that stand for different problems in two runs.

    A chat template and an instruction may differ, and are then there in all prompts of a run. So a problem is the
    same where what tells its prompt from the others of one run stands in its prompt of the other run.
    """
    own, others = ([of[i].prompt for i in ids] for of in (first, second))
    cores = zip(ids, own, _cores(own), others, _cores(others), strict=True)
    return {i for i, a, core_a, b, core_b in cores if a != b and core_a not in b and core_b not in a}


def _cores(prompts: Sequence[str]) -> list[str]:
    """Prompts without what all of them begin with and what all of them end with."""
    start = len(commonprefix(prompts))
    rest = [prompt[start:] for prompt in prompts]
    end = len(commonprefix([text[::-1] for text in rest]))
    return [text[: len(text) - end] for text in rest]


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
