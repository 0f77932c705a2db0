"""avg@k and pass@k: how often responses are right, from counts of correct samples a prompt."""

from typing import Any

import torch
from torch import Tensor

from gopd_lightning.errors import InputError
from gopd_lightning.metrics.problems import ProblemMean, ProblemMetric, problem_means


def avg_at_k(correct: Tensor, samples: Tensor) -> Tensor:
    """Share of correct samples of each prompt.

    Args:
        correct: Correct samples a prompt (the sum of its rewards), [prompts].
        samples: Samples a prompt, [prompts], at least 1.

    Returns:
        Shares in [0, 1], float64 [prompts].
    """
    return problem_means(correct, samples)


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


class AvgAtK(ProblemMean):
    """Mean over prompts of the share of correct samples: `update(correct, samples)`, [prompts] each."""


class PassAtK(ProblemMetric):
    """Mean over prompts of the unbiased pass@k.

    Args:
        k: How many samples may be tried.
        **kwargs: What torchmetrics' `Metric` takes.
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k

    def update(self, correct_counts: Tensor, sample_counts: Tensor) -> None:
        """Add prompts.

        Args:
            correct_counts: Correct samples a prompt, [prompts].
            sample_counts: Samples a prompt, [prompts], each at least k.
        """
        self.add(pass_at_k(correct_counts, sample_counts, self.k))
