"""Token-weighted means: KL, entropy, log-prob gaps, lengths."""

from typing import Any

from torch import Tensor

from gopd_lightning.metrics.sums import SumMetric


def weighted_sums(values: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weighted sum and total weight in float64.

    Args:
        values: Any shape; what stands where the weight is zero is not looked at, NaN included.
        weights: Same shape as `values`: a mask, or token counts when `values` are means of rows. None counts
            every value once.

    Returns:
        Sum of `weights * values` and sum of `weights`, scalars.
    """
    values = values.detach().double()
    if weights is None:
        return values.sum(), values.new_tensor(values.numel())
    weights = weights.detach().to(values)
    return (values * weights).where(weights != 0, 0.0).sum(), weights.sum()


class TokenMean(SumMetric):
    """Mean over tokens, however unevenly they are spread over micro-batches and ranks.

    Args:
        **kwargs: What torchmetrics' `Metric` takes.
    """

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("total", "count", **kwargs)

    def update(self, values: Tensor, weights: Tensor | None = None) -> None:
        """Add tokens.

        Args:
            values: One value a token (any shape), or a mean a row.
            weights: Same shape: 0/1 mask of the tokens that count, or the rows' token counts.
        """
        total, count = weighted_sums(values, weights)
        self.total += total
        self.count += count

    def compute(self) -> Tensor:
        """The mean, a float64 scalar; NaN before any token."""
        return self.total / self.count
