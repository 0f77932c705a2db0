"""The GRPO module: reinforcement learning with verifiable rewards, to make experts."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch.optim import AdamW

from gopd_lightning.models.specs import StudentSpec
from gopd_lightning.modules.on_policy import OnPolicyModule
from gopd_lightning.modules.routing import Routing
from gopd_lightning.objectives import GRPOObjective
from gopd_lightning.objectives.importance import Cap
from gopd_lightning.schedules import WarmupDecay


class GRPO(OnPolicyModule):
    """Group-relative policy optimization with one update a rollout, no KL term.

    Args:
        student: The model to train.
        normalise_std: Divide advantages by the group's standard deviation.
        loss_aggregation: token_mean or sequence_mean.
        max_micro_batch_tokens: Padded tokens scored with gradient at a time; changes memory, not results.
        max_grad_norm: Gradients are clipped to this norm; null never clips.
        importance_weight_cap: Upper bound of the importance weights against the rollout engine; null
            trusts the engine (weights of 1), auto trusts the one that computes with the trainer's own weights and
            code and takes 5 for all others.
        max_engine_gap: The run stops when the engine's log-probs of its own tokens are further from the trainer's than
            this, in nats, as the mean of a step's tokens; null never stops it.
        temperature: Softmax temperature of the student's policy: sampled with and scored at.
        on_nonfinite: stop, or skip (and count) a step whose loss or gradient is not finite.
        optimizer: Makes the optimizer from the trainable parameters.
        lr_scheduler: Makes the learning rate schedule, stepped once an optimizer step.
    """

    def __init__(
        self,
        student: StudentSpec,
        normalise_std: bool = True,
        loss_aggregation: str = "token_mean",
        max_micro_batch_tokens: int = 16384,
        max_grad_norm: float | None = 1.0,
        importance_weight_cap: Cap = "auto",
        max_engine_gap: float | None = 0.5,
        temperature: float = 1.0,
        on_nonfinite: str = "stop",
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable = WarmupDecay,
    ) -> None:
        super().__init__(
            student=student,
            objective=GRPOObjective(normalise_std),
            routing=Routing(),
            loss_aggregation=loss_aggregation,
            max_micro_batch_tokens=max_micro_batch_tokens,
            max_grad_norm=max_grad_norm,
            temperature=temperature,
            frozen_temperature=1.0,
            on_nonfinite=on_nonfinite,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            importance_weight_cap=importance_weight_cap,
            max_engine_gap=max_engine_gap,
        )
