"""A tiny run with the metrics, hooks and records of a real one, for the tests of the callbacks."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gopd_callbacks.graceful_stop import GracefulStop
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from gopd_lightning.metrics_file import MetricsFile
from gopd_lightning.records import Batch, Completion, Prompt, Row, Verdict

DOMAINS = ("math", "code")


def row(uid: int, sample: int = 0, domain: str = "math") -> Row:
    ids = [uid, uid + 1, 7]
    prompt = Prompt(uid=uid, domain=domain, dataset=domain, text=f"{domain} prompt {uid}", ids=[1, 2])
    completion = Completion(ids=ids, finished=sample == 0)
    return Row(
        prompt=prompt, completion=completion, sample=sample, text=f"answer {uid}", verdict=Verdict(reward=sample % 2)
    )


class Loader:
    """A sized, stateful loader of batches that depend on their number alone."""

    def __init__(self, size: int) -> None:
        self.size, self.next = size, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Batch]:
        while self.next < self.size:
            self.next += 1
            yield Batch([], [row(self.next, s, d) for d in DOMAINS for s in (0, 1)])
        self.next = 0

    def state_dict(self) -> dict[str, int]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next = state["next"]


class Tiny(LightningModule):
    """Manual optimization of a few weights; logs the names that a real run logs."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.pause = pause
        self.weight = torch.nn.Parameter(torch.ones(3))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        time.sleep(self.pause)
        optimizer: Any = self.optimizers()
        target = torch.tensor([float(i) for i in batch.rows[0].completion.ids])
        loss = ((self.weight - target.sin()) ** 2).sum()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        for one in batch.rows:
            one.scores = {"student": [-1.0, -2.0, -0.5], "teacher": [-0.5, -1.0, -0.25]}
        self.log_dict({"train/loss": loss.detach(), "train/grad_norm": 0.5, "speed/tokens_per_s": 25123.0})
        for number, domain in enumerate(DOMAINS):
            names = ("reward", "kl_teacher", "kl_reference", "entropy", "length")
            self.log_dict({f"{n}/{domain}": loss.detach() * 0.01 + number for n in names})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        time.sleep(self.pause)
        for domain in DOMAINS:
            figures = {f"val/{domain}/avg@4": self.weight.mean(), f"val/{domain}/length": 20.0}
            self.log_dict(figures, batch_size=1)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        time.sleep(self.pause)

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        time.sleep(self.pause)


def trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {"max_steps": 12, "max_epochs": -1, "val_check_interval": 4}
    defaults |= {"check_val_every_n_epoch": None, "logger": False}
    defaults |= {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    defaults |= {"log_every_n_steps": 1, "num_sanity_val_steps": 0, "accelerator": "cpu", "devices": 1}
    return Trainer(default_root_dir=folder, callbacks=list(callbacks), **(defaults | settings))


def main(folder: str, pause: str, ckpt: str = "") -> None:
    checkpoint = ModelCheckpoint(save_last=True, every_n_train_steps=100, save_on_train_epoch_end=False)
    run = trainer(
        Path(folder),
        GracefulStop(),
        checkpoint,
        enable_checkpointing=True,
        logger=MetricsFile(folder),
    )
    model = Tiny(float(pause))
    run.fit(model, Loader(10), Loader(3), ckpt_path=ckpt or None)
    torch.save(model.weight.data, Path(folder) / "weights.pt")
    print("interrupted", run.should_stop, "at", run.global_step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
