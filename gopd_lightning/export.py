"""From a training checkpoint to a Hugging Face folder that `from_pretrained` and vLLM load."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerBase

from gopd_lightning.errors import InputError
from gopd_lightning.models.folders import DTYPES, adapter_base, check_model, generation_config, load_tokenizer
from gopd_lightning.models.loading import load_student
from gopd_lightning.models.specs import StudentSpec

PREFIX = "student."


def save_hf(
    model: nn.Module, state_dict: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write a Hugging Face folder: safetensors, config, generation config and tokenizer.

    The folder is written under another name and then put in place: an older one stays whole until then.

    Args:
        model: The Hugging Face model whose weights these are; gives the configurations.
        state_dict: Its whole (unsharded) weights by the model's own names.
        tokenizer: Its tokenizer.
        folder: Where; what is there is replaced.
    """
    saver: Any = model
    with put_in_place(Path(folder)) as temporary:
        saver.save_pretrained(temporary, state_dict={name: t.cpu() for name, t in state_dict.items()})
        tokenizer.save_pretrained(temporary)


def export_run(run: str, out: str, ckpt: str = "last", dtype: str | None = None) -> None:
    """Write the student of a run's checkpoint as a Hugging Face folder; of one with a PEFT adapter, the adapter.

    Args:
        run: The run folder.
        out: The folder to write; what is there is replaced.
        ckpt: Name of a checkpoint in `checkpoints/` of the run folder, without `.ckpt`.
        dtype: float32, bfloat16 or float16; None keeps the checkpoint's.

    Raises:
        InputError: No such run or checkpoint, or an unknown dtype.
    """
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"--dtype {dtype} is unknown; known: {', '.join(DTYPES)}")
    student = _student_of(Path(run))
    state = _student_weights(_checkpoint(Path(run), ckpt))
    config = check_model(student, "model.student")
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    model: Any = _model(student, config, next(iter(state.values())).dtype)
    _load(model, state, run)
    if dtype is not None:
        model.to(getattr(torch, dtype))
    save_hf(model, model.state_dict(), load_tokenizer(student, "model.student"), Path(out))


def _model(student: StudentSpec, config: PretrainedConfig, dtype: torch.dtype) -> nn.Module:
    """The model that the checkpoint's weights belong to."""
    if student.lora is not None or adapter_base(student.path):
        return load_student(student)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.generation_config = generation_config(student.path) or model.generation_config
    return model  # type: ignore[no-any-return]


def _student_of(run: Path) -> StudentSpec:
    """The student that the run's config.yaml names."""
    file = run / "config.yaml"
    if not file.is_file():
        raise InputError(f"{run} is not a run folder: it holds no config.yaml")
    try:
        spec = yaml.safe_load(file.read_text())["model"]["init_args"]["student"]
        return StudentSpec(**{key: spec[key] for key in ("path", "dtype", "lora") if key in spec})
    except (KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{file} names no model.init_args.student.path") from error


def _checkpoint(run: Path, name: str) -> Path:
    folder = run / "checkpoints"
    file = folder / f"{name.removesuffix('.ckpt')}.ckpt"
    if file.exists():
        return file
    found = ", ".join(sorted(path.stem for path in folder.glob("*.ckpt"))) or "none"
    raise InputError(f"there is no checkpoint {file}; found: {found}")


def _student_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The student's weights of a checkpoint, by the Hugging Face model's own names."""
    if checkpoint.is_dir():
        with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
            whole = Path(folder) / "whole.pt"
            dcp_to_torch_save(checkpoint, whole)
            content = torch.load(whole, map_location="cpu", weights_only=True)
    else:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = content["state_dict"]
    student = {name.removeprefix(PREFIX): t for name, t in weights.items() if name.startswith(PREFIX)}
    if not student:
        raise InputError(f"{checkpoint} holds no weights of a student: is it a checkpoint of gopd?")
    return student


def _load(model: nn.Module, state: Mapping[str, Tensor], run: str) -> None:
    """Load strictly, but for a head that is tied to the embeddings."""
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if getattr(model.config, "tie_word_embeddings", False):
        own.pop("lm_head.weight", None)
    given = {name: tensor.shape for name, tensor in state.items()}
    for name in sorted(own.keys() | given.keys()):
        if own.get(name) != given.get(name):
            raise InputError(
                f"the checkpoint of {run} does not fit the student that its config.yaml names: {name} is "
                f"{_words(given.get(name))} in the checkpoint and {_words(own.get(name))} in the student"
            )
    model.load_state_dict(state, strict=False)


def _words(shape: torch.Size | None) -> str:
    return "missing" if shape is None else f"{tuple(shape)}"


@contextmanager
def put_in_place(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place when all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh = temporary / "new"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            os.replace(folder, temporary / "old")
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
