"""Accuracy of graded rows by data set: what validation, testing and the final table all count with."""

from collections.abc import Iterable, Sequence

import torch
from torchmetrics import MaxMetric

from gopd_lightning.metrics import (
    AvgAtK,
    CrashedShare,
    Figure,
    MajAtK,
    PassAtK,
    ProblemMetric,
    ResponseLength,
    Surprisal,
    TruncationRate,
)
from gopd_lightning.records import Completion, Prompt, Row, Verdict, groups


class EvaluationMetrics:
    """avg@k, pass@k, maj@k, response length, share of truncated and of crashed responses of every data set.

    Args:
        prompts: All prompts of the split on all ranks: they name the data sets, so that every rank counts
            the same ones and the ranks' values can be put together.
        device: Where the ranks' values meet: a GPU where the ranks talk over NCCL.
    """

    def __init__(self, prompts: Iterable[Prompt], device: torch.device | str = "cpu") -> None:
        self.datasets = sorted({prompt.dataset for prompt in prompts})
        self._metrics = {name: _SetMetrics(torch.device(device)) for name in self.datasets}

    def update(self, rows: Sequence[Row]) -> None:
        """Count rows; the samples of one prompt must stand side by side.

        Args:
            rows: Graded rows. Rows that nobody graded count towards length and truncation only.
        """
        by_set: dict[str, list[list[Row]]] = {}
        for group in groups(rows):
            by_set.setdefault(group[0].prompt.dataset, []).append(group)
        for name, prompts in by_set.items():
            self._metrics[name].update(prompts)

    def compute(self, prefix: str) -> dict[str, float]:
        """The figures over all ranks, for logging: means only (a collective).

        Args:
            prefix: Split: the keys are `<prefix>/<data set>/<figure>`.
        """
        return {
            f"{prefix}/{name}/{figure}": float(metric.compute())
            for name, metrics in self._metrics.items()
            for figure, metric in metrics.logged().items()
            if metrics.has(metric)
        }

    def figures(self, level: float = 0.95) -> dict[str, dict[str, Figure]]:
        """The figures over all ranks with intervals over problems (a collective).

        Args:
            level: Of the intervals.

        Returns:
            By data set: avg@k, pass@ every power of two up to k and k itself, maj@k where answers have votes,
            length (tokens), surprisal (nats a token), truncated and crashed. What needs a verifier is absent where
            nothing was graded, surprisal where the engine gives no log-probs.
        """
        return {
            name: {figure: metric.figure(level) for figure, metric in metrics.all().items() if metrics.has(metric)}
            for name, metrics in self._metrics.items()
        }


class _SetMetrics:
    """The metrics of one data set."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._samples = MaxMetric().to(device)
        self._samples.update(0)  # a data set without a verifier has no k
        self._length = ResponseLength().to(device)
        self._surprisal = Surprisal().to(device)
        self._truncated = TruncationRate().to(device)
        self._crashed = CrashedShare().to(device)
        self._average = AvgAtK().to(device)
        self._majority = MajAtK().to(device)
        self._pass: dict[int, PassAtK] = {}

    def update(self, prompts: Sequence[Sequence[Row]]) -> None:
        """Count the samples of some prompts."""
        responses = torch.tensor([len(rows) for rows in prompts])
        self._length.update(_sums([len(row.completion.ids) for row in rows] for rows in prompts), responses)
        self._truncated.update(_sums([not row.completion.finished for row in rows] for rows in prompts), responses)
        self._count_surprisal([[row.completion for row in rows] for rows in prompts])
        verdicts = [[row.verdict for row in rows if row.verdict is not None] for rows in prompts]
        graded = [found for found in verdicts if found]
        if graded:
            self._count_verdicts(graded)

    def _count_surprisal(self, prompts: Sequence[Sequence[Completion]]) -> None:
        known = [found for found in prompts if all(one.logprobs is not None for one in found)]
        tokens = torch.tensor([sum(len(one.ids) for one in found) for found in known])
        self._surprisal.update(-_sums([sum(one.logprobs or ()) for one in found] for found in known), tokens)

    def _count_verdicts(self, prompts: Sequence[Sequence[Verdict]]) -> None:
        rewards = [[verdict.reward for verdict in found] for found in prompts]
        samples = torch.tensor([len(found) for found in prompts])
        self._samples.update(samples)
        self._crashed.update(_sums([verdict.crashed for verdict in found] for found in prompts), samples)
        self._average.update(_sums(rewards), samples)
        self._majority.update([[verdict.vote for verdict in found] for found in prompts], rewards)
        self._start_pass(len(rewards[0]))
        for metric in self._pass.values():
            metric.update(_sums([reward >= 1 for reward in found] for found in rewards), samples)

    def logged(self) -> dict[str, ProblemMetric]:
        """What is logged at each validation, by name; the same on every rank (a collective)."""
        k = int(self._samples.compute())
        names = {f"avg@{k}", f"maj@{k}", "length", "truncated"} | ({f"pass@{k}"} if k > 1 else set())
        return {name: metric for name, metric in self.all().items() if name in names}

    def all(self) -> dict[str, ProblemMetric]:
        """Every metric by name; the same on every rank, whatever a rank has seen itself (a collective)."""
        k = int(self._samples.compute())
        always: dict[str, ProblemMetric] = {
            "length": self._length,
            "surprisal": self._surprisal,
            "truncated": self._truncated,
        }
        if not k:
            return always
        self._start_pass(k)
        metrics: dict[str, ProblemMetric] = {f"avg@{k}": self._average}
        metrics |= {f"pass@{size}": metric for size, metric in self._pass.items()}
        if k > 1:
            metrics[f"maj@{k}"] = self._majority
        return metrics | always | {"crashed": self._crashed}

    def has(self, metric: ProblemMetric) -> bool:
        """Whether a metric is defined; votes and log-probs may be missing (a collective)."""
        if metric is not self._majority and metric is not self._surprisal:
            return True
        return not bool(metric.compute().isnan())

    def _start_pass(self, samples: int) -> None:
        """The first graded prompt tells k."""
        if not self._pass:
            sizes = [2**power for power in range(samples.bit_length()) if 2**power < samples]
            self._pass = {size: PassAtK(size).to(self._device) for size in (*sizes, samples)}


def _sums(per_sample: Iterable[Sequence[float]]) -> torch.Tensor:
    """The sum over each prompt's samples, float64 [prompts]."""
    return torch.tensor([sum(values) for values in per_sample], dtype=torch.float64)
