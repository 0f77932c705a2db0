"""Learning rate schedules that need not be told how long the run is."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

_PROGRESS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "lr_lambdas")


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


class GivenSettings:
    """What the command line says of an optimizer and its schedule, kept while a checkpoint is restored.

    Restoring brings back the rates of the former command line with the state; a resumed run obeys its own.

    Args:
        optimizer: A fresh optimizer.
        schedule: Its fresh schedule.
    """

    def __init__(self, optimizer: Optimizer, schedule: LRScheduler) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self._groups = [_without(group, ("params", "lr")) for group in optimizer.param_groups]
        self._settings = _without(schedule.state_dict(), _PROGRESS)

    def put_back(self) -> None:
        """Apply the given settings at the step that was restored; where nothing changed, change nothing."""
        groups = [_without(group, ("params", "lr")) for group in self.optimizer.param_groups]
        settings = _without(self.schedule.state_dict(), _PROGRESS)
        if groups == self._groups and settings == self._settings:
            return
        vars(self.schedule).update(self._settings)
        rates = self._rates(settings.get("base_lrs", []))
        for group, given, rate in zip(self.optimizer.param_groups, self._groups, rates, strict=True):
            group.update(given, lr=rate)
        self.schedule._last_lr = rates

    def _rates(self, former: list[Any]) -> list[Any]:
        """The rates of the restored step: a multiplier's exactly, other schedules' in proportion."""
        if isinstance(self.schedule, LambdaLR):
            step = self.schedule.last_epoch
            pairs = zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
            return [base * factor(step) for base, factor in pairs]
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        given = self._settings.get("base_lrs", [])
        shares = [new / old if old else 1.0 for new, old in zip(given, former, strict=True)] or [1.0] * len(rates)
        return [rate * share for rate, share in zip(rates, shares, strict=True)]


def _without(content: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in names}
