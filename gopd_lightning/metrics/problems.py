"""The base of the evaluation's metrics: one value a problem, kept until the end, so that intervals can be had."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from gopd_lightning.metrics.intervals import Figure, bootstrap_interval, mean_and_stderr, share_interval


def problem_means(totals: Tensor, counts: Tensor) -> Tensor:
    """Mean over the samples of each problem.

    Args:
        totals: Sum over the problem's samples, [problems].
        counts: Samples a problem, [problems], at least 1.

    Returns:
        float64 [problems].
    """
    return totals.detach().double() / counts.detach().double()


class ProblemMetric(Metric):
    """Keeps one float64 value a problem, whatever precision the model trains in, over any number of ranks.

    A rank may hold any number of problems, none included. `compute`, `stderr`, `interval` and `figure` are
    collectives: every rank calls the same ones in the same order.

    Args:
        **kwargs: What torchmetrics' `Metric` takes.
    """

    full_state_update = False
    is_share = True
    """Whether the values lie in [0, 1]."""

    values: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        # A list: torchmetrics stacks tensor states over ranks, which uneven ranks do not survive.
        super().__init__(**{"dist_sync_fn": _gather, **kwargs})
        self.add_state("values", [], dist_reduce_fx="cat")

    @property
    def update_called(self) -> bool:
        """Always: a rank without problems is no mistake that torchmetrics should warn of."""
        return True

    def add(self, values: Tensor) -> None:
        """Keep the values of some problems.

        Args:
            values: One value a problem, [problems].
        """
        self.values.append(values.detach().double().to(self.device))

    def compute(self) -> Tensor:
        """The mean over the problems of all ranks, a float64 scalar; NaN before any problem."""
        return mean_and_stderr(self.per_problem())[0]

    def stderr(self) -> Tensor:
        """Standard error of the mean over the problems of all ranks, a float64 scalar."""
        with self._all_ranks():
            return mean_and_stderr(self.per_problem())[1]

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Bootstrap interval over the problems of all ranks (see `gopd_lightning.metrics.intervals`).

        Args:
            level: Share of data sets whose interval is to hold the true mean.

        Returns:
            Lower and upper end, float64 scalars on the CPU; NaN where they are not defined.
        """
        with self._all_ranks():
            values = self.per_problem()
        return self._interval(values, level)

    def figure(self, level: float = 0.95) -> Figure:
        """Mean, interval and standard error over the problems of all ranks.

        Args:
            level: Of the interval.
        """
        with self._all_ranks():
            values = self.per_problem()
        low, high = self._interval(values, level)
        mean, stderr = mean_and_stderr(values)
        return Figure(mean=float(mean), low=float(low), high=float(high), stderr=float(stderr))

    def per_problem(self) -> Tensor:
        """The values kept so far, in rising order, float64 [problems]: of all ranks where the states are synced."""
        parts = [self.values] if isinstance(self.values, Tensor) else self.values
        empty = torch.empty(0, dtype=torch.float64, device=self.device)
        return torch.cat([empty, *parts]).sort().values

    def _interval(self, values: Tensor, level: float) -> tuple[Tensor, Tensor]:
        return share_interval(values, level) if self.is_share else bootstrap_interval(values, level)

    @contextmanager
    def _all_ranks(self) -> Iterator[None]:
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            yield

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        # `bf16-true` casts the module that holds the metric; torchmetrics lets `.to(dtype)` reach the states.
        kept = list(self.values)
        super()._apply(fn, exclude_state)
        self.values = [value.to(self.device) for value in kept]
        return self


def _gather(values: Tensor, group: Any = None) -> list[Tensor]:
    """Every rank's values; torchmetrics makes those of a rank without any in another precision."""
    gathered: list[Tensor] = gather_all_tensors(values.double(), group)
    return gathered


class ProblemMean(ProblemMetric):
    """Mean over problems of a mean over the samples of each.

    Args:
        **kwargs: What torchmetrics' `Metric` takes.
    """

    def update(self, totals: Tensor, counts: Tensor) -> None:
        """Add problems.

        Args:
            totals: Sum over the problem's samples, [problems].
            counts: Samples a problem, [problems], at least 1.
        """
        self.add(problem_means(totals, counts))


class ResponseLength(ProblemMean):
    """Mean length of the responses in tokens."""

    is_share = False


class Surprisal(ProblemMean):
    """Mean of -log p a token of what was drawn, in nats: at temperature 1 its expectation is the policy's entropy."""

    is_share = False


class TruncationRate(ProblemMean):
    """Share of responses that were cut at the length limit."""


class CrashedShare(ProblemMean):
    """Share of responses that the verifier failed on."""
