"""avg@k and pass@k: how often responses are right, from counts of correct samples a prompt."""

from typing import Any

import torch
from torch import Tensor

from gopd_lightning.errors import InputError
from gopd_lightning.metrics.sums import SumMetric


def avg_at_k(correct: Tensor, samples: Tensor) -> Tensor:
    """Share of correct samples of each prompt.

    Args:
        correct: Correct samples a prompt, [prompts].
        samples: Samples a prompt, [prompts], at least 1.

    Returns:
        Shares in [0, 1], float64 [prompts].
    """
    return correct.double() / samples.double()


def pass_at_k(correct: Tensor, samples: Tensor, k: int) -> Tensor:
    """Unbiased chance that k of a prompt's samples hold a correct one: 1 - C(n - c, k) / C(n, k).

    Args:
        correct: Correct samples a prompt (c), [prompts].
        samples: Samples a prompt (n), [prompts], each at least k.
        k: How many samples may be tried.

    Returns:
        Chances in [0, 1], float64 [prompts].

    Raises:
        InputError: A prompt has fewer than k samples.
    """
    if k < 1 or bool((samples < k).any()):
        raise InputError(f"pass@{k} needs k >= 1 and at least k samples a prompt; raise the sampling's n")
    tries = torch.arange(k, device=correct.device, dtype=torch.float64)
    left = samples.double().unsqueeze(-1) - tries
    wrong = (left - correct.double().unsqueeze(-1)).clamp(min=0)
    return 1 - (wrong / left).prod(dim=-1)


def mean_and_stderr(per_prompt_means: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over prompts and its standard error.

    Args:
        per_prompt_means: One figure a prompt, [prompts].

    Returns:
        Mean and standard error (sample deviation over the root of the number of prompts), float64 scalars.
        The error of fewer than two prompts is NaN.
    """
    values = per_prompt_means.double()
    count = values.new_tensor(values.numel())
    return values.mean(), _stderr((values - values.mean()).square().sum(), count)


def _stderr(squared_deviations: Tensor, count: Tensor) -> Tensor:
    variance = squared_deviations.clamp(min=0) / (count - 1)
    return (variance / count).sqrt()


class AvgAtK(SumMetric):
    """Mean over prompts of the share of correct samples, with its standard error.

    Args:
        **kwargs: What torchmetrics' `Metric` takes.
    """

    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("total", "squares", "count", **kwargs)

    def update(self, correct_counts: Tensor, sample_counts: Tensor) -> None:
        """Add prompts.

        Args:
            correct_counts: Correct samples a prompt, [prompts].
            sample_counts: Samples a prompt, [prompts].
        """
        shares = avg_at_k(correct_counts, sample_counts)
        self.total += shares.sum()
        self.squares += shares.square().sum()
        self.count += shares.numel()

    def compute(self) -> Tensor:
        """The mean over the prompts of all ranks, a float64 scalar; NaN before any prompt."""
        return self.total / self.count

    def stderr(self) -> Tensor:
        """Standard error of the mean over the prompts of all ranks (a collective, like `compute`)."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return _stderr(self.squares - self.total.square() / self.count, self.count)


class PassAtK(SumMetric):
    """Mean over prompts of the unbiased pass@k.

    Args:
        k: How many samples may be tried.
        **kwargs: What torchmetrics' `Metric` takes.
    """

    total: Tensor
    count: Tensor

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__("total", "count", **kwargs)
        self.k = k

    def update(self, correct_counts: Tensor, sample_counts: Tensor) -> None:
        """Add prompts.

        Args:
            correct_counts: Correct samples a prompt, [prompts].
            sample_counts: Samples a prompt, [prompts], each at least k.
        """
        chances = pass_at_k(correct_counts, sample_counts, self.k)
        self.total += chances.sum()
        self.count += chances.numel()

    def compute(self) -> Tensor:
        """The mean over the prompts of all ranks, a float64 scalar; NaN before any prompt."""
        return self.total / self.count
