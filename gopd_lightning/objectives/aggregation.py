"""How per-token losses become one number: explicit, and the same under any micro-batching."""

from collections.abc import Sequence

import torch
from torch import Tensor

AGGREGATIONS = ("token_mean", "sequence_mean")


def token_weights(lengths: Sequence[int], aggregation: str, tokens: int, sequences: int) -> Tensor:
    """The weight of every token's loss in the step's loss.

    Args:
        lengths: Response length of each row of the micro-batch.
        aggregation: `token_mean`, the mean over all tokens of the optimizer step and all ranks, or
            `sequence_mean`, the mean over sequences of each one's token mean (what the published numbers used).
        tokens: Response tokens of the whole optimizer step over all ranks.
        sequences: Sequences of the whole optimizer step over all ranks.

    Returns:
        (sum(lengths),) weights; over the whole step and all ranks they add up to 1.

    Raises:
        ValueError: An unknown aggregation.
    """
    counts = torch.tensor(lengths)
    if aggregation == "token_mean":
        return torch.full((int(counts.sum()),), 1.0 / tokens)
    if aggregation == "sequence_mean":
        return (1.0 / (sequences * counts.double())).float().repeat_interleave(counts)
    raise ValueError(f"loss_aggregation is {aggregation!r}; known: {', '.join(AGGREGATIONS)}")
