"""The progress display: a small live panel in a terminal, plain lines everywhere else."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.live import Live

from gopd_callbacks.figures import read_baselines
from gopd_callbacks.panel import Counter, State, Tally, panel, plain_line
from gopd_lightning.errors import InputError


class Progress(ProgressBar):
    """How far a run is, how long it still takes, and how the student does by domain.

    In a terminal: a bar, a table with a line per domain and a line of rates, redrawn four times a second.
    When the output is not a terminal (a file, a pipe, TERM=dumb): one line every `plain_every` steps and one
    after each validation. Only rank zero shows anything.

    Args:
        plain_every: Steps (outside of `fit`: batches) from one plain line to the next.

    Raises:
        InputError: plain_every is below 1.
    """

    def __init__(self, plain_every: int = 10) -> None:
        super().__init__()
        if plain_every < 1:
            raise InputError(f"Progress.plain_every is {plain_every}; it must be at least 1")
        self._plain_every = plain_every
        self._enabled = True
        self._state: State | None = None
        self._screen: ExitStack | None = None

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; what is on the screen stays."""
        self._close()
        self._enabled = False

    # Training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the display at the step from which the run starts or goes on."""
        first = trainer.global_step
        total = trainer.estimated_stepping_batches
        self._open(Counter("step", total, done=first, first=first, unit="step"))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step and show its figures."""
        if self._state is None:
            return
        self._state.main.done = trainer.global_step
        self._look(self._state, trainer)
        self._say_now_and_then(self._state)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state on the screen."""
        self._close()

    # Validation: between two training steps, or alone

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count validation batches, beside the training steps where there are any."""
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        counter = Counter("sanity check" if trainer.sanity_checking else "validation", sum(batches))
        if self._state is None:
            self._open(counter)
        else:
            self._state.inner = counter

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        if self._state is not None and self._state.inner is not None:
            self._state.inner.done += 1
        else:
            self._count_batch()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the accuracies."""
        if self._state is None:
            return
        self._look(self._state, trainer)
        if self._state.inner is None:
            self._close()
            return
        self._state.inner = None
        self._say(f"validation after {plain_line(self._state)}")

    # Testing and prediction

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the display: samples where a callback counts them, else batches."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        tallies = [callback.tally for callback in callbacks if hasattr(callback, "tally")]
        self._open(tallies[0] if tallies else Counter("testing", sum(trainer.num_test_batches)))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch, or say what has been counted."""
        if self._state is None or not isinstance(self._state.main, Tally):
            self._count_batch()
        elif (batch_idx + 1) % self._plain_every == 0 or batch_idx + 1 == sum(trainer.num_test_batches):
            self._say(plain_line(self._state))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state on the screen."""
        self._close()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the display."""
        self._open(Counter("predicting", sum(trainer.num_predict_batches)))

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        self._count_batch()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state on the screen."""
        self._close()

    # The end, whatever it is

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the terminal back."""
        self._close()

    def _open(self, counter: Counter) -> None:
        self._close()
        if not self._enabled:
            return
        self._state = state = State(counter)
        if not on_terminal():
            return
        self._screen = ExitStack()
        self._screen.enter_context(Live(get_renderable=lambda: panel(state), refresh_per_second=4))
        self._screen.enter_context(_logs_above_the_display())

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.close()
        self._screen = self._state = None

    def _look(self, state: State, trainer: Trainer) -> None:
        state.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        state.baselines = read_baselines(Path(trainer.default_root_dir))

    def _count_batch(self) -> None:
        if self._state is not None:
            self._state.main.done += 1
            self._say_now_and_then(self._state)

    def _say_now_and_then(self, state: State) -> None:
        if state.main.done % self._plain_every == 0 or state.main.done == state.main.total:
            self._say(plain_line(state))

    def _say(self, line: str) -> None:
        if self._screen is None:
            print(line, flush=True)


def on_terminal() -> bool:
    """Whether somebody watches: standard output is a terminal that can move its cursor."""
    stdout = getattr(sys.stdout, "rich_proxied_file", sys.stdout)  # behind the live display, when it is on
    return stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def _logs_above_the_display() -> Iterator[None]:
    """Send log records through the display: their handlers hold the terminal and would tear the panel."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    handlers = {h for logger in loggers for h in logger.handlers if isinstance(h, logging.StreamHandler)}
    former = {h: h.stream for h in handlers if h.stream in (sys.__stderr__, sys.__stdout__)}
    for handler in former:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in former.items():
            handler.setStream(stream)
