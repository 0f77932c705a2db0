"""A rank that vanishes with its node, or hangs, ends the run within a minute instead of leaving the others waiting."""

import os
import socket
import sys
import threading
import time
from datetime import timedelta

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from gopd_callbacks.requeue import Requeue, requeue
from gopd_lightning.errors import InputError

_BEATS = 9  # in the time after which a silent rank counts as lost


class Heartbeat(Callback):
    """Every rank says that it lives; one that is silent for too long ends the run, with a line that names it.

    A process that dies is noticed by its launcher, and by the others when its connections close. A node that loses its
    power or its network closes nothing: the others would wait in a collective until its timeout, 30 minutes by
    default. Rank 0 listens to all ranks, every rank to rank 0, in threads of their own, so that a long rollout is no
    silence. A job that was suspended as a whole goes on. With `Requeue` beside it a SLURM job goes back into the
    queue, as it does when SLURM misses a node, which may take longer.

    Args:
        seconds: A rank that has been silent for so long is lost.

    Raises:
        InputError: seconds is not positive.
    """

    def __init__(self, seconds: float = 45.0) -> None:
        if seconds <= 0:
            raise InputError(f"Heartbeat.seconds is {seconds}: how long may a rank be silent?")
        self.seconds = seconds
        self._over = threading.Event()
        self._over.set()
        self._heard: dict[int, float] = {}
        self._said: dict[int, bytes] = {}
        self._hosts: dict[int, str] = {}
        self._requeue = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to beat and to listen, on several ranks."""
        if trainer.world_size == 1 or not self._over.is_set():
            return
        store = self._meet(trainer)
        listened = range(1, trainer.world_size) if trainer.is_global_zero else [0]
        store.set(f"host{trainer.global_rank}", socket.gethostname())
        self._beat(store, trainer.global_rank, 0)
        trainer.strategy.barrier("every heart beats")
        self._hosts = {rank: store.get(f"host{rank}").decode() for rank in listened}
        self._heard = dict.fromkeys(listened, time.monotonic())
        # once: rank 0 misses others, and when it is missed itself rank 1 is there
        self._requeue = trainer.global_rank < 2 and any(isinstance(one, Requeue) for one in trainer.callbacks)  # type: ignore[attr-defined]
        self._over.clear()
        threading.Thread(target=self._live, args=(store, trainer.global_rank), daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop listening, when all ranks have come to the end."""
        if not self._over.is_set():
            trainer.strategy.barrier("every heart may stop")
        self._over.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop listening: this rank ends and says why."""
        self._over.set()

    def _meet(self, trainer: Trainer) -> TCPStore:
        """A store of our own: the process group's may be busy with somebody's waiting."""
        patience = timedelta(seconds=self.seconds)
        host, first = os.environ["MASTER_ADDR"], trainer.is_global_zero
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=patience) if first else None
        port = trainer.strategy.broadcast(store.port if store else 0)
        return store or TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=patience)

    def _beat(self, store: TCPStore, rank: int, count: int) -> None:
        store.set(f"beat{rank}", str(count))

    def _live(self, store: TCPStore, rank: int) -> None:
        """Beat and listen until the end; a store that hangs leaves `_heard` as it is."""
        ranks = list(self._heard)
        keys = [f"beat{other}" for other in ranks]
        count = 0
        try:
            while not self._over.wait(self.seconds / _BEATS):
                count += 1
                self._beat(store, rank, count)
                for other, said in zip(ranks, store.multi_get(keys), strict=True):
                    if self._said.get(other) != said:
                        self._said[other], self._heard[other] = said, time.monotonic()
        except RuntimeError:  # a connection that closes is a process that ended: its launcher ends the job
            self._over.set()

    def _watch(self) -> None:
        """End this process when a rank is silent."""
        pause, last = self.seconds / _BEATS, time.monotonic()
        while not self._over.wait(pause):
            now = time.monotonic()
            if now - last > 3 * pause:  # this process was stopped itself: everybody may have been
                self._heard |= dict.fromkeys(self._heard, now)
            last = now
            silent = [rank for rank, heard in self._heard.items() if now - heard > self.seconds]
            if silent and not self._over.is_set():
                self._end(silent)

    def _end(self, silent: list[int]) -> None:
        """Say who is lost and leave: the main thread waits in a collective, where no exception reaches it."""
        names = ", ".join(f"rank {rank} on {self._hosts[rank]}" for rank in silent)
        sys.stderr.write(
            f"gopd: nothing heard of {names} for {self.seconds:.0f} s: the node is lost, or the process hangs. "
            "This run ends; the same command goes on from its last checkpoint\n"
        )
        sys.stderr.flush()
        if self._requeue:
            requeue()
        os._exit(1)
