"""maj@k: how often the answer that most samples of a prompt agree on is right."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gopd_lightning.metrics.problems import ProblemMetric

Votes = Sequence[str | None]


def maj_at_k(votes: Votes, rewards: Sequence[float]) -> float:
    """Expected reward of the answer with the most votes; one of equally many is taken at random.

    Args:
        votes: What each sample of a prompt votes for, [samples]; None does not vote.
        rewards: Reward of each sample, [samples]. Samples with one vote count with their mean.

    Returns:
        In [0, 1]; 0 when nobody votes.
    """
    tally = Counter(vote for vote in votes if vote is not None)
    if not tally:
        return 0.0
    most = max(tally.values())
    tied = {vote for vote, times in tally.items() if times == most}
    voted = [reward for vote, reward in zip(votes, rewards, strict=True) if vote in tied]
    return sum(voted) / len(voted)  # each of the tied has as many votes, so this is the mean of their means


class MajAtK(ProblemMetric):
    """Mean over prompts of maj@k; NaN as long as no sample of any prompt has a vote (programs have none).

    Args:
        **kwargs: What torchmetrics' `Metric` takes.
    """

    voted: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("voted", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, votes: Sequence[Votes], rewards: Sequence[Sequence[float]]) -> None:
        """Add prompts.

        Args:
            votes: Of the samples of each prompt, [prompts][samples].
            rewards: Likewise.
        """
        found = [maj_at_k(*prompt) for prompt in zip(votes, rewards, strict=True)]
        self.add(torch.tensor(found, dtype=torch.float64))
        self.voted += sum(vote is not None for prompt in votes for vote in prompt)

    def per_problem(self) -> Tensor:
        """The values kept so far, in rising order, float64 [problems]; none as long as nobody voted."""
        values = super().per_problem()
        return values if self.voted > 0 else values[:0]
