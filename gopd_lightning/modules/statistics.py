"""Figures of one optimizer step by domain: summed over micro-batches and ranks, then divided once."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gopd_lightning.errors import TrainingError
from gopd_lightning.records import Row

_TOKEN_SUMS = ("entropy", "kl_teacher", "kl_reference", "advantage", "engine_gap")
_ROW_SUMS = ("length", "truncated", "reward")


class StepStatistics:
    """Sums and counts a domain, reduced over ranks in one collective.

    Every figure has its own count, so that a domain whose teacher needs no reference, or rows that nobody
    verified, do not pull a mean towards 0.

    Args:
        domains: All domains of the run, the same on every rank.
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = sorted(domains)
        self.names = (*_TOKEN_SUMS, *_ROW_SUMS)
        self.sums = torch.zeros(len(self.domains), len(self.names), 2, dtype=torch.float64)

    def add(self, rows: Sequence[Row], statistics: dict[str, Tensor], engine: Tensor | None) -> None:
        """Add one micro-batch, all rows of one domain.

        Args:
            rows: Its rows.
            statistics: Detached per-token figures (N,) of the objective.
            engine: (N,) log-probs of the rollout engine, or None.
        """
        domain = rows[0].prompt.domain
        student = statistics["student"]
        figures = {"entropy": statistics["entropy"], "advantage": statistics.get("advantage")}
        for name in ("teacher", "reference"):
            other = statistics.get(name)
            figures[f"kl_{name}"] = None if other is None else student - other
        figures["engine_gap"] = None if engine is None else (student - engine).abs()
        for name, values in figures.items():
            if values is not None:
                self._add(domain, name, float(values.double().sum()), values.numel())
        self._add(domain, "length", sum(len(row.completion.ids) for row in rows), len(rows))
        self._add(domain, "truncated", sum(not row.completion.finished for row in rows), len(rows))
        rewards = [row.reward for row in rows if row.reward is not None]
        self._add(domain, "reward", sum(rewards), len(rewards))

    def means(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The mean of every figure that was counted.

        Args:
            reduce: Sums a tensor over all ranks.

        Returns:
            `<figure>/<domain>`: value. KL figures are the mean log-ratio of the sampled tokens.
        """
        total = reduce(self.sums)
        means = {}
        for i, domain in enumerate(self.domains):
            for j, name in enumerate(self.names):
                value, count = total[i, j].tolist()
                if count:
                    means[f"{name}/{domain}"] = value / count
        return means

    def _add(self, domain: str, name: str, value: float, count: int) -> None:
        self.sums[self.domains.index(domain), self.names.index(name)] += torch.tensor(
            [value, count], dtype=torch.float64
        )


def check_engine_gap(figures: Mapping[str, float], limit: float | None, step: int) -> None:
    """Stop before an update from samples of another policy than the student's.

    Args:
        figures: What `StepStatistics.means` gave.
        limit: Largest `engine_gap/<domain>` in nats; None allows any.
        step: The step's number, for the message.

    Raises:
        TrainingError: A domain's gap is larger.
    """
    gaps = {name.partition("/")[2]: gap for name, gap in figures.items() if name.startswith("engine_gap/")}
    for domain, gap in gaps.items():
        if limit is not None and gap > limit:
            raise TrainingError(
                f"step {step}: the rollout engine's log-probs of its own tokens are {gap:.2g} nats from the trainer's "
                f"({domain}; model.max_engine_gap is {limit:g}): it does not sample from the student. Its weights were "
                "not handed over, or it serves another model. Nothing was updated"
            )
