"""Supervised fine-tuning: the off-policy baseline, and pretraining."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.optim import AdamW

from gopd_lightning.errors import InputError
from gopd_lightning.models.specs import StudentSpec
from gopd_lightning.modules.on_policy import OnPolicyModule
from gopd_lightning.modules.routing import Routing
from gopd_lightning.objectives import Likelihood
from gopd_lightning.records import Batch, Completion, Prompt, Row
from gopd_lightning.schedules import WarmupDecay


class SFT(OnPolicyModule):
    """Maximum likelihood of the `response` of every training row, through the same step as the other methods.

    Args:
        student: The model to train.
        loss_aggregation: token_mean or sequence_mean.
        max_micro_batch_tokens: Padded tokens scored with gradient at a time; changes memory, not results.
        max_grad_norm: Gradients are clipped to this norm; null never clips.
        on_nonfinite: stop, or skip (and count) a step whose loss or gradient is not finite.
        optimizer: Makes the optimizer from the trainable parameters.
        matrix_optimizer: Makes a second optimizer for the matrices of the blocks (all two-dimensional weights but
            embeddings and head), such as torch.optim.Muon; null leaves them to `optimizer`.
        lr_scheduler: Makes the learning rate schedule of each optimizer, stepped once an optimizer step.
    """

    def __init__(
        self,
        student: StudentSpec,
        loss_aggregation: str = "token_mean",
        max_micro_batch_tokens: int = 16384,
        max_grad_norm: float | None = 1.0,
        on_nonfinite: str = "stop",
        optimizer: OptimizerCallable = AdamW,
        matrix_optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable = WarmupDecay,
    ) -> None:
        super().__init__(
            student=student,
            objective=Likelihood(),
            routing=Routing(),
            loss_aggregation=loss_aggregation,
            max_micro_batch_tokens=max_micro_batch_tokens,
            max_grad_norm=max_grad_norm,
            temperature=1.0,
            frozen_temperature=1.0,
            on_nonfinite=on_nonfinite,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
        )
        self._make_matrix_optimizer = matrix_optimizer

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimizer, or one for the blocks' matrices after the one for everything else."""
        if self._make_matrix_optimizer is None:
            return super().make_optimizers()
        matrices = self._block_matrices()
        known = {id(p) for p in matrices}
        rest = [p for p in self.trainable_parameters() if id(p) not in known]
        return [self._make_optimizer(rest), self._make_matrix_optimizer(matrices)]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimizer step on the given responses."""
        batch.rows = [given_row(prompt) for prompt in batch.prompts]
        super().training_step(batch, batch_idx)

    def _block_matrices(self) -> list[nn.Parameter]:
        """Trainable two-dimensional weights outside embeddings and head."""
        assert self.student is not None
        ends = {id(p) for m in self.student.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        ends.add(id(self.student.get_output_embeddings().weight))  # type: ignore[operator]
        return [p for p in self.trainable_parameters() if p.ndim == 2 and id(p) not in ends]


def given_row(prompt: Prompt) -> Row:
    """A row whose completion is the prompt's given response.

    Raises:
        InputError: The row has none.
    """
    if prompt.response is None:
        raise InputError(f"{prompt.source}: no `response`, which supervised training needs")
    return Row(prompt=prompt, completion=Completion(ids=prompt.response, finished=True))
