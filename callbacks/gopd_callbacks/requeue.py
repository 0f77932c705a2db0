"""Before SLURM takes a job's nodes away, the run saves and puts its job back into the queue, to go on from there."""

import os
import signal
import subprocess
import sys

from lightning.pytorch import LightningModule, Trainer

from gopd_callbacks.graceful_stop import GracefulStop


class Requeue(GracefulStop):
    """On SLURM's warning signal: finish the step, save `checkpoints/last.ckpt`, requeue the job, stop.

    The requeued job runs the same command, whose `--ckpt_path last` goes on exactly where it was. Ask for the
    warning by `#SBATCH --signal=USR1@120`: so many seconds before the end as a step, its rollout and a
    validation take. Outside SLURM the signal saves and stops, no more.

    Lightning has a requeue of its own, which saves inside the signal handler, where ranks wait for one another
    in vain; it leaves a signal alone that has been taken before the fit begins, which is done here.

    Args:
        warning: The signal.

    Example::

        callbacks+:
          - class_path: gopd_callbacks.Requeue
            init_args: {warning: SIGUSR2}
    """

    def __init__(self, warning: signal.Signals = signal.SIGUSR1) -> None:
        super().__init__()
        self.signals = (warning,)
        self._saved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the signal before Lightning looks for it, and before the models load."""
        if stage == "fit":
            self._take_signals()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what came since `setup`: it counts at the end of the first step."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Requeue also when something fails after the checkpoint was written."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Requeue as the last thing of all: SLURM ends the job at once."""
        if self._saved and trainer.is_global_zero:
            # SLURM answers a requeue by SIGTERM to this very process
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            requeue()
        self._saved = False
        super()._restore()

    def _promise(self, number: int) -> str:
        return f"{signal.Signals(number).name}: saving at the end of the step, then back into the queue"

    def _stop(self, trainer: Trainer) -> None:
        super()._stop(trainer)
        self._saved = True

    def _restore(self) -> None:
        """Keep the signal until `teardown`: after the last step it must not end the run by its default action."""


def requeue() -> None:
    """Put this process's SLURM job back into the queue, which ends it here; outside SLURM nothing happens."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    print(f"requeueing job {job}", flush=True)
    command = ["scontrol", "requeue", job]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", "") or error).strip()
        print(f"job {job} could not be requeued ({why}): submit it again", file=sys.stderr, flush=True)
