"""The G-OPD module: on-policy distillation from one or more teachers, extrapolated by lambda."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch.optim import AdamW

from gopd_lightning.errors import InputError
from gopd_lightning.models.specs import ModelSpec, StudentSpec, TeacherSpec
from gopd_lightning.modules.on_policy import OnPolicyModule
from gopd_lightning.modules.routing import build_routing
from gopd_lightning.objectives import FullGOPD, Objective, SampledGOPD
from gopd_lightning.objectives.importance import Cap
from gopd_lightning.rollouts.engine import Sampling
from gopd_lightning.schedules import WarmupDecay


class GOPD(OnPolicyModule):
    """Generalized On-Policy Distillation (paper 2602.12125).

    The student samples; the teacher of each row's domain and the reference score the sampled tokens; the update
    maximises `lambda * (log teacher - log reference) - (log student - log reference)` a token.

    Args:
        student: The model to train.
        teachers: The frozen teachers, one a domain.
        reference: student_init (the weights at the student's path), a model, or null. Not loaded unless some
            teacher's reward_scale differs from 1.
        reward_scale: lambda. 1 is on-policy distillation, above 1 extrapolates past the teachers (ExOPD).
        estimator: sampled (the published estimator) or full (exact over the vocabulary).
        loss_aggregation: token_mean, or sequence_mean as the published numbers used.
        max_micro_batch_tokens: Padded tokens scored with gradient at a time; changes memory, not results.
        max_grad_norm: Gradients are clipped to this norm; null never clips.
        importance_weight_cap: Upper bound of the importance weights against the rollout engine (sampled estimator);
            null trusts the engine (weights of 1), auto trusts the one that computes with the trainer's own weights
            and code and takes 5 for all others.
        max_engine_gap: The run stops when the engine's log-probs of its own tokens are further from the trainer's than
            this, in nats, as the mean of a step's tokens; null never stops it.
        temperature: Softmax temperature of the student's policy: sampled with and scored at.
        frozen_temperature: Temperature that teachers and references are scored at; must be given when
            temperature is not 1.
        max_loaded_models: Teachers and references that may be in (the device's) memory at a time, each loaded again
            when its turn comes, once a step; null keeps all of them.
        allow_truncated_sampling: Allow top_p < 1 or top_k > 0 in rollouts, whose log-ratios are then biased.
        on_nonfinite: stop, or skip (and count) a step whose loss or gradient is not finite.
        optimizer: Makes the optimizer from the trainable parameters.
        lr_scheduler: Makes the learning rate schedule, stepped once an optimizer step.

    Raises:
        InputError: Settings that contradict each other; see the message.
    """

    def __init__(
        self,
        student: StudentSpec,
        teachers: list[TeacherSpec],
        reference: ModelSpec | str | None = None,
        reward_scale: float = 1.0,
        estimator: str = "sampled",
        loss_aggregation: str = "token_mean",
        max_micro_batch_tokens: int = 16384,
        max_grad_norm: float | None = 1.0,
        importance_weight_cap: Cap = "auto",
        max_engine_gap: float | None = 0.5,
        temperature: float = 1.0,
        frozen_temperature: float | None = None,
        max_loaded_models: int | None = None,
        allow_truncated_sampling: bool = False,
        on_nonfinite: str = "stop",
        optimizer: OptimizerCallable = AdamW,
        lr_scheduler: LRSchedulerCallable = WarmupDecay,
    ) -> None:
        if frozen_temperature is None and temperature != 1.0:
            raise InputError(
                f"model.temperature is {temperature}: say with model.frozen_temperature at which temperature "
                "the teachers are scored (the same, or 1)"
            )
        super().__init__(
            student=student,
            objective=_objective(estimator),
            routing=build_routing(student, teachers, reference, reward_scale),
            loss_aggregation=loss_aggregation,
            max_micro_batch_tokens=max_micro_batch_tokens,
            max_grad_norm=max_grad_norm,
            temperature=temperature,
            frozen_temperature=1.0 if frozen_temperature is None else frozen_temperature,
            on_nonfinite=on_nonfinite,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            importance_weight_cap=importance_weight_cap,
            max_engine_gap=max_engine_gap,
        )
        if max_loaded_models is not None and max_loaded_models < 1:
            raise InputError(f"model.max_loaded_models is {max_loaded_models}: write 1 or more, or null")
        self.max_loaded_models = max_loaded_models
        self.allow_truncated_sampling = allow_truncated_sampling

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse also truncated sampling: its samples are not from the policy in the log-ratio.

        Raises:
            InputError: Naming the setting.
        """
        super().check_sampling(sampling)
        if sampling.truncated and not self.allow_truncated_sampling:
            raise InputError(
                f"sampling.top_p = {sampling.top_p}, top_k = {sampling.top_k} cut the policy that the log-ratios "
                "assume: use top_p 1 and top_k 0, or set model.allow_truncated_sampling=true"
            )


def _objective(estimator: str) -> Objective:
    """The objective behind an estimator's name."""
    if estimator == "sampled":
        return SampledGOPD()
    if estimator == "full":
        return FullGOPD()
    raise InputError(f"model.estimator is {estimator!r}; known: sampled, full")
