"""Accuracy of graded rows by data set: what validation, testing and the final table all count with."""

from collections.abc import Iterable, Sequence

import torch

from gopd_lightning.metrics import AvgAtK, PassAtK, TokenMean
from gopd_lightning.records import Prompt, Row, groups


class EvaluationMetrics:
    """avg@k and pass@k, response length and share of truncated responses of every data set.

    Args:
        prompts: All prompts of the split on all ranks: they name the data sets, so that every rank counts
            the same ones and the ranks' sums can be added up.
    """

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self.datasets = sorted({prompt.dataset for prompt in prompts})
        self._average = {name: AvgAtK() for name in self.datasets}
        self._length = {name: TokenMean() for name in self.datasets}
        self._truncated = {name: TokenMean() for name in self.datasets}
        self._pass: dict[str, PassAtK] = {}
        self.samples = 0

    def update(self, rows: Sequence[Row]) -> None:
        """Count rows; the samples of one prompt must stand side by side.

        Args:
            rows: Graded rows. Rows that nobody graded count towards length and truncation only.
        """
        for group in groups(rows):
            self._count(group)

    def compute(self, prefix: str) -> dict[str, float]:
        """The figures over all ranks.

        Args:
            prefix: Split: the keys are `<prefix>/<data set>/<figure>`.
        """
        figures = {}
        for name in self.datasets:
            head = f"{prefix}/{name}"
            if self.samples:
                figures[f"{head}/avg@{self.samples}"] = float(self._average[name].compute())
                if self.samples > 1:
                    figures[f"{head}/pass@{self.samples}"] = float(self._pass[name].compute())
            figures[f"{head}/length"] = float(self._length[name].compute())
            figures[f"{head}/truncated"] = float(self._truncated[name].compute())
        return figures

    def _count(self, rows: list[Row]) -> None:
        """Count the samples of one prompt."""
        name = rows[0].prompt.dataset
        lengths = torch.tensor([float(len(row.completion.ids)) for row in rows])
        cut = torch.tensor([float(not row.completion.finished) for row in rows])
        self._length[name].update(lengths)
        self._truncated[name].update(cut)
        rewards = [row.reward for row in rows if row.reward is not None]
        if not rewards:
            return
        self._start(len(rewards))
        count = torch.tensor([len(rewards)])
        self._average[name].update(torch.tensor([sum(rewards)]), count)
        self._pass[name].update(torch.tensor([sum(reward >= 1 for reward in rewards)]), count)

    def _start(self, samples: int) -> None:
        """The first graded prompt tells k."""
        if self.samples == 0:
            self.samples = samples
            self._pass = {name: PassAtK(samples) for name in self.datasets}
