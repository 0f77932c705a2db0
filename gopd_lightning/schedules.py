"""Learning rate schedules that need not be told how long the run is."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupDecay(LambdaLR):
    """Linear warm-up, a plateau, and a linear decay to `floor` over the last part of the run.

    Args:
        optimizer: The optimizer.
        warmup_steps: Steps of the warm-up; the first step runs at 1 / warmup_steps of the rate.
        decay_share: Share of the run over which the rate falls; 0 keeps it constant.
        floor: Share of the rate left at the end.
        total_steps: Length of the run; None takes `trainer.max_steps`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int = 0,
        decay_share: float = 0.0,
        floor: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        self.warmup_steps = warmup_steps
        self.decay_share = decay_share
        self.floor = floor
        self.total_steps = total_steps
        super().__init__(optimizer, self._factor)

    def _factor(self, step: int) -> float:
        """Share of the rate at an optimizer step, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if not self.total_steps or not self.decay_share:
            return rise
        left = (self.total_steps - step) / (self.decay_share * self.total_steps)
        return min(rise, max(self.floor, min(1.0, left)))


def fit_to_run(schedule: Any, max_steps: int) -> None:
    """Tell a `WarmupDecay` that does not know it how long the run is.

    Args:
        schedule: Any learning rate scheduler; others are left alone.
        max_steps: `trainer.max_steps`.
    """
    if isinstance(schedule, WarmupDecay) and schedule.total_steps is None and max_steps > 0:
        schedule.total_steps = max_steps
