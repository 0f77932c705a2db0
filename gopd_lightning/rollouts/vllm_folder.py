"""Weights on their way to vLLM servers through a folder that all of them see: written whole, or not at all."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from gopd_lightning.errors import TrainingError

_PREFIX = "gopd-weights-"
_FILE_BYTES = 4 << 30  # in memory at a time


def write_weights(
    weights: Iterable[tuple[str, Tensor]], folder: Path, stamp: str, dtype: torch.dtype | None = None
) -> Path:
    """Write weights into a folder of their own.

    Args:
        weights: Name and tensor of each.
        folder: Where the folder goes.
        stamp: Names it.
        dtype: What they are written as; None keeps theirs.

    Returns:
        The new folder, absolute.

    Raises:
        TrainingError: They cannot be written.
    """
    final = folder.resolve() / f"{_PREFIX}{stamp}"
    temporary = final.with_name(f".{final.name}.part")
    try:
        temporary.mkdir(parents=True)
        _write_files(weights, temporary, dtype)
        os.replace(temporary, final)
    except OSError as error:
        raise TrainingError(f"the weights for the vLLM servers cannot be written into {folder}: {error}") from error
    return final


def drop_others(kept: Path) -> None:
    """Delete the weights of earlier steps beside `kept`, which no server will ask for again."""
    for old in kept.parent.glob(f"*{_PREFIX}*"):
        if old != kept:
            shutil.rmtree(old, ignore_errors=True)


def _write_files(weights: Iterable[tuple[str, Tensor]], folder: Path, dtype: torch.dtype | None) -> None:
    """Files of bounded size, so that no more than one is in memory."""
    waiting: dict[str, Tensor] = {}
    files = size = 0
    for name, weight in weights:
        waiting[name] = weight.to(device="cpu", dtype=dtype or weight.dtype).contiguous()
        size += waiting[name].nbytes
        if size >= _FILE_BYTES:
            save_file(waiting, folder / f"{files:05}.safetensors")
            waiting, files, size = {}, files + 1, 0
    if waiting:
        save_file(waiting, folder / f"{files:05}.safetensors")
