"""The base of gopd's metrics: sums in float64 that stay float64 whatever precision the model trains in."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric


class SumMetric(Metric):
    """A metric whose states are float64 scalars, summed over ranks.

    Args:
        *names: Names of the states; each starts at zero.
        **kwargs: What torchmetrics' `Metric` takes.
    """

    full_state_update = False

    def __init__(self, *names: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in names:
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        # `bf16-true` casts the module that holds the metric; torchmetrics lets `.to(dtype)` reach the states.
        super()._apply(fn, exclude_state)
        for name in self._defaults:
            self._defaults[name] = self._defaults[name].double()  # type: ignore[union-attr]
            setattr(self, name, getattr(self, name).double())
        return self
