"""Ctrl-C and SIGTERM end a run at the next step's end with a checkpoint, from which it goes on exactly."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities import rank_zero_only


class GracefulStop(Callback):
    """Finishes the step, saves `checkpoints/last.ckpt` and stops; a second signal stops at once.

    The signal handler only sets a flag: saving is collective work on several ranks, and a signal comes to
    each at another moment. The flag is read where a checkpoint resumes exactly: after a step, or after the
    validation that is due there. The end-of-run callbacks can tell a stopped run by `trainer.interrupted`.
    """

    signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}
        self._step = 0
        self._limit_val_batches: int | float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over from Lightning, whose own SIGTERM handler leaves without a checkpoint."""
        self._take_signals()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Know the step's number, for the message."""
        self._step = trainer.global_step + 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop when a rank was told to, unless a validation is still due at this step."""
        if self._any_rank(trainer) and not _validation_is_due(trainer):
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and stop after the validation that `on_train_batch_end` waited for."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._any_rank(trainer):
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._restore()
        if self._limit_val_batches is not None:
            trainer.limit_val_batches = self._limit_val_batches

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore()

    def _take_signals(self) -> None:
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in self.signals}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            # from a thread: the signal may have come in the middle of a print, which cannot be entered twice
            threading.Thread(target=_say, args=(self._promise(number),)).start()
        self.requested = True

    def _promise(self, number: int) -> str:
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        return f"finishing step {self._step}, then saving{again}"

    def _any_rank(self, trainer: Trainer) -> bool:
        if trainer.interrupted:  # another callback has saved at this very step
            return False
        if trainer.world_size == 1:
            return self.requested
        return trainer.strategy.reduce_boolean_decision(self.requested, all=False)

    def _stop(self, trainer: Trainer) -> None:
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if trainer.is_global_zero and path.is_symlink():
            path.unlink()  # a link of ModelCheckpoint: saving through it would overwrite what it points to
        trainer.strategy.barrier("graceful stop")
        _take_for_last(trainer, str(path))
        trainer.save_checkpoint(path)
        trainer.should_stop = True
        # minimum epochs and steps would overrule the user
        trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = 0
        trainer.state.status = TrainerStatus.INTERRUPTED
        # Lightning validates once more when told to stop; an uninterrupted run has no such validation
        self._limit_val_batches = trainer.limit_val_batches
        trainer.limit_val_batches = 0
        _say(f"saved {path} at step {trainer.global_step}; go on with the same command and --ckpt_path last")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _take_for_last(trainer: Trainer, path: str) -> None:
    """Make ModelCheckpoint take our file for its last one.

    On its way out it would otherwise save another, whose epoch counter has already gone on.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.last_model_path = callback._last_checkpoint_saved = path
            callback._last_global_step_saved = trainer.global_step


def _validation_is_due(trainer: Trainer) -> bool:
    """Whether Lightning validates after this step; it has no public question for that."""
    loop = trainer.fit_loop
    return loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)
