"""The on-policy step as a LightningModule: score, weigh, backward, update, whatever the objective is.

One loader batch is one rollout is one optimizer step, by manual optimization: micro-batches within a token budget,
every token weighted by counts of the whole step over all ranks, gradients synchronised on the last. The rows
come filled in by `gopd_callbacks.Rollout`; this module knows no engine.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gopd_lightning.cost import Scored
from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.machine import Stopwatch
from gopd_lightning.models.frozen import check_served
from gopd_lightning.models.scoring import LocalScorer
from gopd_lightning.models.specs import StudentSpec
from gopd_lightning.modules.frozen_scores import FrozenStep
from gopd_lightning.modules.routing import Routing
from gopd_lightning.modules.statistics import StepStatistics, check_engine_gap
from gopd_lightning.modules.student import StudentModule
from gopd_lightning.objectives import AGGREGATIONS, Objective, Tokens, token_weights
from gopd_lightning.objectives.importance import Cap, resolved_cap
from gopd_lightning.records import Batch, Row, micro_batches
from gopd_lightning.schedules import GivenSettings, fit_to_run

MAX_SKIPS_IN_A_ROW = 10


class OnPolicyModule(StudentModule):
    """The student, its frozen models and the optimizer step that all methods share.

    Args:
        student: The model to train.
        objective: Turns scores of tokens into a loss a token.
        routing: The frozen models by domain; empty for objectives that need none.
        loss_aggregation: token_mean or sequence_mean, see `objectives.token_weights`.
        max_micro_batch_tokens: Padded tokens scored with gradient at a time; changes memory, not results.
        max_grad_norm: Gradients are clipped to this norm; null never clips.
        temperature: Softmax temperature of the student's policy: sampled with and scored at.
        frozen_temperature: Temperature that teachers and references are scored at.
        on_nonfinite: stop, or skip (and count) a step whose loss or gradient is not finite.
        optimizer: Makes the optimizer from the trainable parameters.
        lr_scheduler: Makes the learning rate schedule, stepped once an optimizer step.
        importance_weight_cap: See `objectives.importance.resolved_cap`; for objectives that weigh their tokens.
        max_engine_gap: Largest mean distance of the engine's log-probs from the trainer's, in nats; null allows any.

    Raises:
        InputError: An unknown loss_aggregation or on_nonfinite; a served model that cannot say what is asked of it.
    """

    def __init__(
        self,
        student: StudentSpec,
        objective: Objective,
        routing: Routing,
        loss_aggregation: str,
        max_micro_batch_tokens: int,
        max_grad_norm: float | None,
        temperature: float,
        frozen_temperature: float,
        on_nonfinite: str,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable,
        importance_weight_cap: Cap = None,
        max_engine_gap: float | None = None,
    ) -> None:
        super().__init__(student, routing, temperature, frozen_temperature)
        if loss_aggregation not in AGGREGATIONS:
            raise InputError(f"model.loss_aggregation is {loss_aggregation!r}; known: {', '.join(AGGREGATIONS)}")
        if on_nonfinite not in ("stop", "skip"):
            raise InputError(f"model.on_nonfinite is {on_nonfinite!r}; known: stop, skip")
        check_served(routing.specs, frozen_temperature, "hidden" in objective.needs)
        self.automatic_optimization = False
        self.objective = objective
        self.loss_aggregation = loss_aggregation
        self.max_micro_batch_tokens = max_micro_batch_tokens
        self.max_grad_norm = max_grad_norm
        self.importance_weight_cap = importance_weight_cap
        self.max_engine_gap = max_engine_gap
        self.on_nonfinite = on_nonfinite
        self._make_optimizer = optimizer
        self._make_scheduler = lr_scheduler
        self._skips_in_a_row = 0

    # Building

    @property
    def needs(self) -> frozenset[str]:
        """What the objective needs of each row."""
        return self.objective.needs

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The student's parameters that an optimizer may change."""
        assert self.student is not None
        return [p for p in self.student.parameters() if p.requires_grad]

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers of the step; the first one's steps are counted as global steps."""
        return [self._make_optimizer(self.trainable_parameters())]

    def configure_optimizers(self) -> Any:
        """Optimizers and their schedules, the latter fitted to the run's length."""
        optimizers = self.make_optimizers()
        schedules = [self._make_scheduler(optimizer) for optimizer in optimizers]
        for schedule in schedules:
            fit_to_run(schedule, self.trainer.max_steps)
        pairs = zip(optimizers, schedules, strict=True)
        self._given = [GivenSettings(optimizer, schedule) for optimizer, schedule in pairs]
        return optimizers, schedules

    def on_train_start(self) -> None:
        """Let a resumed run obey its command line: the checkpoint brought back the former one's rates."""
        for given in self._given:
            given.put_back()

    def rollouts_from(self, own_engine: bool) -> None:
        """Know what samples, before the first step.

        Args:
            own_engine: Whether the rollout engine computes with the trainer's own weights and code.
        """
        if hasattr(self.objective, "importance_weight_cap"):
            self.objective.importance_weight_cap = resolved_cap(self.importance_weight_cap, own_engine)

    # The step

    def on_fit_start(self) -> None:
        """Note the domains of all training rows: statistics are kept for the same ones on every rank."""
        prompts = self.trainer.datamodule.prompts["train"]  # type: ignore[attr-defined]
        self._trained_domains = sorted({prompt.domain for prompt in prompts})

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One optimizer step on one rollout."""
        began = time.perf_counter()
        self.objective.prepare(batch.rows)
        tokens, sequences = self._totals(batch.rows)
        parts = micro_batches(batch.rows, self.max_micro_batch_tokens)
        rounds = int(self._over_ranks(torch.tensor(len(parts)), "max"))
        scoring = Stopwatch(self.device)
        with scoring:
            frozen = self._frozen_step(batch.rows)
        step = _Step(tokens, sequences, frozen, StepStatistics(self._trained_domains))
        loss = torch.zeros((), dtype=torch.float64)
        for i in range(rounds):
            with self._synchronised(i + 1 == rounds):
                loss += self._backward(parts, i, step)
        figures = step.statistics.means(self._over_ranks)
        figures["train/loss"] = float(self._over_ranks(loss))
        check_engine_gap(figures, self.max_engine_gap, self.global_step + 1)
        figures |= self._update(figures["train/loss"])
        batch.info |= {"tokens": tokens, "scored": step.scored, "score_s": scoring.seconds()}
        batch.info["update_s"] = time.perf_counter() - began
        self.log_dict(figures, batch_size=1)

    def _backward(self, parts: list[list[Row]], i: int, step: "_Step") -> Tensor:
        """Forward and backward of one micro-batch; its part of the step's loss.

        A rank that has run out of micro-batches repeats its last one with weight 0: sharded models run
        collectives in every forward, so all ranks must run the same number.
        """
        rows, spare = parts[min(i, len(parts) - 1)], i >= len(parts)
        data = self._tokens(rows, step, spare)
        scores = self.scorer.score([row.prompt.ids for row in rows], [row.completion.ids for row in rows])
        real, padded = scores.positions
        step.scored.append(Scored("student", 0 if spare else real, padded))
        out = self.objective(scores.local_states(), None if step.frozen is None else step.frozen.of(rows), data)
        # data-parallel strategies average gradients over ranks; the weights already count all of them
        self.manual_backward(out.total * self.trainer.world_size)
        if spare:
            return torch.zeros((), dtype=torch.float64)
        step.statistics.add(rows, out.statistics, data.engine_logprobs)
        _keep_scores(rows, {**out.statistics, "loss": out.losses, "weight": data.weights})
        return out.total.detach().double().cpu()

    @property
    def scorer(self) -> LocalScorer:
        """Scores with the student, with gradient where gradients are enabled."""
        assert self.student is not None
        return LocalScorer(self.student, self.vocabulary.size, self.temperature)

    def _frozen_step(self, rows: Sequence[Row]) -> FrozenStep | None:
        """What teachers and references say of the step's rows; None when the objective asks neither."""
        if "teacher" not in self.objective.needs:
            return None
        assert self.frozen is not None
        return FrozenStep(self.frozen, self.routing, rows, hidden="hidden" in self.objective.needs)

    def _tokens(self, rows: Sequence[Row], step: "_Step", spare: bool) -> Tokens:
        """The response tokens of a micro-batch, flat, on the student's device; a spare one weighs nothing."""
        engine = [row.completion.logprobs for row in rows]
        known = None
        if all(values is not None for values in engine):
            known = torch.tensor([x for values in engine for x in values or ()], device=self.device)
        lengths = [len(row.completion.ids) for row in rows]
        advantages = torch.tensor([row.advantage for row in rows]).repeat_interleave(torch.tensor(lengths))
        weights = token_weights(lengths, self.loss_aggregation, step.tokens, step.sequences) * float(not spare)
        return Tokens(
            ids=torch.tensor([x for row in rows for x in row.completion.ids], device=self.device),
            weights=weights.to(self.device),
            engine_logprobs=known,
            advantages=advantages.to(self.device),
        )

    def _update(self, loss: float) -> dict[str, float]:
        """Clip, step and schedule, unless loss or gradient is not finite.

        Raises:
            TrainingError: Not finite, and on_nonfinite is stop (or too many steps in a row were skipped).
        """
        optimizers = _as_list(self.optimizers())
        limit = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.trainable_parameters(), limit)
        grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        rate = optimizers[0].param_groups[0]["lr"]
        finite = bool(torch.isfinite(torch.tensor([loss, grad_norm])).all())
        if finite:
            optimizers[0].step()
            for other in optimizers[1:]:
                other.optimizer.step()  # the plain optimizer: a Lightning one would count a second global step
            for schedule in _as_list(self.lr_schedulers()):
                schedule.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self._note_skip(finite, loss, grad_norm)
        skipped = {} if self.on_nonfinite == "stop" else {"train/skipped": float(not finite)}
        return {"train/grad_norm": grad_norm, "train/lr": rate, **skipped}

    def _note_skip(self, finite: bool, loss: float, grad_norm: float) -> None:
        """Count steps skipped in a row, and stop where skipping is not asked for or does not help."""
        self._skips_in_a_row = 0 if finite else self._skips_in_a_row + 1
        if finite or (self.on_nonfinite == "skip" and self._skips_in_a_row < MAX_SKIPS_IN_A_ROW):
            return
        what = f"loss {loss}, gradient norm {grad_norm}: not finite"
        if self.on_nonfinite == "skip":
            what += f", {MAX_SKIPS_IN_A_ROW} steps in a row"
        hint = "" if self.on_nonfinite == "skip" else ", or set model.on_nonfinite=skip"
        raise TrainingError(
            f"step {self.global_step + 1}: {what}. The weights were not changed; the last checkpoint in "
            f"{self.trainer.default_root_dir}/checkpoints is intact. Lower the learning rate{hint}"
        )

    # Collectives

    def _over_ranks(self, values: Tensor, how: str = "sum") -> Tensor:
        """A tensor reduced over all ranks (sum or max), on the CPU."""
        if self.trainer.world_size == 1:
            return values
        return self.trainer.strategy.reduce(values.to(self.device), reduce_op=how).cpu()

    def _totals(self, rows: Sequence[Row]) -> tuple[int, int]:
        """Response tokens and sequences of the whole optimizer step over all ranks."""
        counts = torch.tensor([sum(len(row.completion.ids) for row in rows), len(rows)])
        tokens, sequences = self._over_ranks(counts).tolist()
        return int(tokens), int(sequences)

    def _synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Let gradients reach the other ranks in the last backward only."""
        block = getattr(self.trainer.strategy, "block_backward_sync", None)
        return nullcontext() if last or block is None else block()


class _Step:
    """What the micro-batches of one optimizer step share: token and sequence counts over all ranks, and records."""

    def __init__(self, tokens: int, sequences: int, frozen: FrozenStep | None, statistics: StepStatistics) -> None:
        self.tokens = tokens
        self.sequences = sequences
        self.frozen = frozen
        self.statistics = statistics
        self.scored: list[Scored] = [] if frozen is None else frozen.scored


def _keep_scores(rows: Sequence[Row], figures: dict[str, Tensor]) -> None:
    """Hand every row its own slice of the flat per-token figures, for the rollout log."""
    lengths = [len(row.completion.ids) for row in rows]
    for name, values in figures.items():
        for row, part in zip(rows, torch.split(values.cpu(), lengths), strict=True):
            row.scores[name] = part


def _as_list(found: Any) -> list[Any]:
    """Lightning gives one optimizer or schedule bare, several as a list, none as None."""
    if found is None:
        return []
    return list(found) if isinstance(found, list | tuple) else [found]
