"""The trained student as a Hugging Face folder in the run folder."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from gopd_lightning.export import save_hf


class HFExport(Callback):
    """Writes the student as a Hugging Face folder when a fit ends; not when it was stopped on the way.

    A student with a PEFT adapter is written as its adapter. Sharded weights are gathered one after the other.

    Args:
        folder: Its name in the run folder; what is there is replaced.
    """

    def __init__(self, folder: str = "student") -> None:
        self._folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather on all ranks, write on rank zero; `on_fit_end` would be after the strategy is gone."""
        if trainer.interrupted:
            return
        module: Any = pl_module
        keep = trainer.is_global_zero
        gathered = {name: _whole(t, keep) for name, t in module.student.state_dict().items()}
        if keep:
            state = {name: t for name, t in gathered.items() if t is not None}
            save_hf(module.student, state, module.tokenizer, Path(trainer.default_root_dir) / self._folder)
        trainer.strategy.barrier("Hugging Face export")


def _whole(tensor: Tensor, keep: bool) -> Tensor | None:
    """The whole of a tensor, on the CPU, where it is kept; gathering is collective: all ranks take part."""
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().cpu() if keep else None
