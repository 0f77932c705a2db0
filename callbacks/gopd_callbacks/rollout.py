"""The rollout: sampled, verified and written into the batch before the module's step sees it."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from gopd_callbacks.ahead import Ahead
from gopd_callbacks.grading import Grading
from gopd_callbacks.rollout_log import write_rows
from gopd_lightning.errors import InputError
from gopd_lightning.records import Batch, Prompt, Row, run_seed
from gopd_lightning.rollouts import RolloutEngine, Sampling, TransformersEngine, is_trainers_own, sample_rows
from gopd_lightning.verifiers import Verifier


class Rollout(Callback):
    """Samples completions for every batch of prompts, in training and evaluation alike.

    A sample's seed is made of (seed, step, prompt, sample), never of generator state: the same run gives the
    same samples whatever the batch size, and after a resume. Evaluation uses the same seeds at every step, so
    that curves compare like with like.

    Args:
        engine: What samples; null takes the transformers engine in the trainer's process.
        sampling: How training responses are drawn.
        eval_sampling: How evaluation responses are drawn; null takes `sampling`.
        verifiers: The verifier of each domain, for rewards and accuracies; domains without one get none.
        verify_training: Verify training responses also when the objective does not ask, to show the reward.
        seed: First part of every sampling seed; null takes `seed_everything`.
        max_staleness: 0 samples and trains in turns. 1 samples the next step while the present one trains, from weights
            that are then one step old; only for engines that run beside training (servers).

    Raises:
        InputError: max_staleness is neither 0 nor 1.

    Example::

        callbacks:
          - class_path: gopd_callbacks.Rollout
            init_args:
              sampling: {n: 8, max_new_tokens: 1024}
              verifiers: {math: {class_path: gopd_lightning.verifiers.MathVerifier}}
    """

    def __init__(
        self,
        engine: RolloutEngine | None = None,
        sampling: Sampling | None = None,
        eval_sampling: Sampling | None = None,
        verifiers: dict[str, Verifier] | None = None,
        verify_training: bool = True,
        seed: int | None = None,
        max_staleness: int = 0,
    ) -> None:
        if max_staleness not in (0, 1):
            raise InputError(f"Rollout.max_staleness is {max_staleness}: 0 or 1")
        self.engine: RolloutEngine = engine or TransformersEngine()
        self.sampling = sampling or Sampling()
        self.eval_sampling = eval_sampling or self.sampling
        self.verifiers = verifiers or {}
        self.grading = Grading(self.verifiers)
        self.verify_training = verify_training
        self.seed = run_seed(seed)
        self.max_staleness = max_staleness
        self._ahead = Ahead(self.sampling.n)
        self._predicted: list[Row] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check settings and ground truths before any weights load.

        Args:
            trainer: The trainer; its data module has been set up.
            pl_module: The module.
            stage: fit, validate, test or predict.

        Raises:
            InputError: Sampling that the objective cannot score, a prompt limit that leaves no room, a domain
                whose verifier is missing, or an answer that its verifier cannot use.
        """
        module: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        needs_rewards = "rewards" in module.needs
        verifies = needs_rewards or (self.verify_training and bool(module.needs))
        if stage == "fit":
            module.check_sampling(self.sampling)
        self._check_room(module.config, data.max_prompt_tokens)
        for split, prompts in data.prompts.items():
            graded = split in ("val", "test") or (split == "train" and verifies)
            self.grading.check(prompts if graded else (), must=needs_rewards and split == "train")
        self.grading.start({prompt.domain for prompts in data.prompts.values() for prompt in prompts})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the module what samples, now that no overlay can change it any more."""
        module: Any = pl_module
        if module.needs:
            module.rollouts_from(own_engine=is_trainers_own(self.engine))
        if self.max_staleness and not getattr(self.engine, "concurrent", False):
            raise InputError(
                f"Rollout.max_staleness is 1, but {type(self.engine).__name__} samples in the trainer's own process: "
                "use VLLMServerEngine, or set it to 0"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Fill the batch with the rollout of this step, unless its rows are given."""
        module: Any = pl_module
        if not module.needs:  # supervised rows bring their responses
            return
        verify = self.verify_training or "rewards" in module.needs
        began = time.perf_counter()
        rows = self._ahead.take(trainer, batch.prompts, partial(module.tokenizer.decode, skip_special_tokens=True))
        if rows is None:
            self._fill(trainer, module, batch, self.sampling, trainer.global_step, verify)
        else:
            self._finish(batch, rows, began, verify)
        if self.max_staleness:
            self.engine.sync(module.student, trainer.global_step)
            self._ahead.start(trainer, partial(self._sample, module, self.sampling))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the engine to those who evaluate after training."""
        self._ahead.wait()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End what still samples."""
        self._ahead.close()

    def state_dict(self) -> dict[str, Any]:
        """The rollout that was sampled ahead, for a checkpoint."""
        found = self._ahead.state() if self.max_staleness else []
        return {"ahead": found} if found else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a rollout that was sampled ahead out of a checkpoint.

        Args:
            state_dict: What `state_dict` gave.
        """
        self._ahead.restore(state_dict["ahead"])

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Fill a batch of validation or test prompts."""
        self._fill(trainer, pl_module, batch, self.eval_sampling, "evaluation", True)

    on_test_batch_start = on_validation_batch_start

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Fill a batch to predict."""
        self._fill(trainer, pl_module, batch, self.eval_sampling, "evaluation", False)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no completions."""
        self._predicted = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's completions."""
        self._predicted += batch.rows

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write this rank's completions to `predictions.parquet`, whose rows supervised training can read."""
        suffix = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        file = Path(trainer.default_root_dir) / f"predictions{suffix}.parquet"
        write_rows(self._predicted, trainer.global_step, file)
        rank_zero_only(print)(f"{len(self._predicted):,} completions in {file}")

    def _fill(
        self, trainer: Trainer, module: Any, batch: Batch, sampling: Sampling, step: int | str, verify: bool
    ) -> None:
        """Sync, sample, verify; rows and seconds go into the batch."""
        began = time.perf_counter()
        self._ahead.wait()
        self.engine.wake()
        self.engine.sync(module.student, trainer.global_step)
        rows = self._sample(module, sampling, batch.prompts, step)
        self.engine.sleep()
        self._finish(batch, rows, began, verify)

    def _sample(self, module: Any, sampling: Sampling, prompts: Sequence[Prompt], step: int | str) -> list[Row]:
        """Rows from the engine's present weights."""
        return sample_rows(self.engine, prompts, sampling, (self.seed, step), module.tokenizer, module.vocabulary)

    def _finish(self, batch: Batch, rows: list[Row], began: float, verify: bool) -> None:
        """Put rows into the batch, verified, and the seconds that they took."""
        batch.rows = rows
        sampled = time.perf_counter()
        if verify:
            self.grading(batch.rows)
        batch.info |= {"rollout_s": sampled - began, "verify_s": time.perf_counter() - sampled}

    def _check_room(self, config: Any, max_prompt_tokens: int) -> None:
        """Check that the longest prompt and the longest response fit the student's context."""
        room = getattr(config, "max_position_embeddings", None)
        longest = max(self.sampling.max_new_tokens, self.eval_sampling.max_new_tokens)
        if room is not None and max_prompt_tokens + longest > room:
            raise InputError(
                f"data.max_prompt_tokens ({max_prompt_tokens}) + sampling.max_new_tokens ({longest}) exceed the "
                f"student's context of {room} tokens: lower one of them"
            )
