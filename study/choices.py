"""What validation prompts decide: the learning rate or factor of each method, and where an expert stops."""

import re
from typing import Any

from study.commands import Run
from study.design import Design
from study.plan import DOMAINS
from study.reading import answers, finished, steps


class Choices:
    """Decides from the runs that are there.

    Args:
        design: All runs.
    """

    def __init__(self, design: Design) -> None:
        self._mode = design.mode
        self._runs = {run.name: run for run in design.runs}

    def resolved(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """A command line with what was decided in it.

        Args:
            words: The command line of a run whose `needs` have finished.
        """
        return tuple(re.sub(r"\{(rate|step):([\w/.-]+)\}", self._decide, word) for word in words)

    def _decide(self, found: re.Match[str]) -> str:
        return f"{self.rate(found[2]):g}" if found[1] == "rate" else f"{self.step(found[2])}"

    def rate(self, method: str) -> float:
        """The setting of a method: the best of its grid, the first where they are equal."""
        values = self._mode.grids[method]
        return values[0] if len(values) == 1 else max(values, key=lambda value: self.tried(method)[value])

    def tried(self, method: str) -> dict[float, float]:
        """Mean of both columns over both domains on validation prompts, by setting; only what was measured."""
        names = {value: f"grid/{method}/{value:g}" for value in self._mode.grids[method]}
        there = {run.name for run in finished(tuple(self._runs.values()), self._mode.work)}
        return {value: _score(self._runs[name]) for value, name in names.items() if name in there}

    def step(self, expert: str) -> int:
        """The step at which an expert's greedy validation accuracy is nearest to the shipped one's.

        Args:
            expert: "<experts>/<domain>".
        """
        domain = expert.rpartition("/")[2]
        target = answers(self._runs[f"validation/{domain}"], domain).greedy.mean()
        curve = self.greedy_by_step(expert)
        return min(curve, key=lambda step: abs(curve[step] - target))

    def greedy_by_step(self, expert: str) -> dict[int, float]:
        """Greedy validation accuracy of an expert by step."""
        name = f"val/{expert.rpartition('/')[2]}/avg@1"
        rows = steps(self._mode.work / "experts" / expert)
        return {int(row["step"]): row[name] for row in rows if name in row}

    def report(self) -> dict[str, Any]:
        """Everything that was tried and taken."""
        grids = {name: self.tried(name) for name, values in self._mode.grids.items() if len(values) > 1}
        done = {run.name for run in finished(tuple(self._runs.values()), self._mode.work)}
        stops = [f"{k}/{d}" for k, experts in self._mode.experts.items() if experts.like for d in DOMAINS]
        return {
            "grids": {
                name: {"tried": {f"{v:g}": 100 * score for v, score in scores.items()}, "taken": self.rate(name)}
                for name, scores in grids.items()
                if len(scores) == len(self._mode.grids[name])
            },
            "stops": {
                expert: {"greedy": self.greedy_by_step(expert), "taken": self.step(expert)}
                for expert in stops
                if f"experts/{expert}" in done
            },
        }


def _score(run: Run) -> float:
    found = [answers(run, domain) for domain in DOMAINS]
    return float(sum(one.sampled.mean() + one.greedy.mean() for one in found) / (2 * len(found)))
