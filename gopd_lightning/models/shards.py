"""Sharded models that no rank ever holds whole: built without memory, sharded, their weights read into the shards.

Files that do not hold the model's weights under its own names (GGUF, `.bin`, quantised or fused weights) are read whole
by transformers, and sharded then.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from gopd_lightning.models.folders import generation_config
from gopd_lightning.models.specs import ModelSpec

Work = Callable[[nn.Module], object]
_Files = dict[str, TensorStorageMetadata]


def load_into_shards(spec: ModelSpec, prepare: Work, place: Work) -> nn.Module | None:
    """A sharded model whose weights were read straight into this rank's shards; every rank must call.

    Args:
        spec: The model: a folder or hub id.
        prepare: What to do to the model before it is sharded.
        place: Shards it in place and gives memory to what has none, see `materialise`.

    Returns:
        The model; None where its files must be read by transformers.
    """
    folder = _folder(spec.path)
    if folder is None:
        return None
    model, reader = _empty(spec), HuggingFaceStorageReader(folder)
    found: Any = reader.read_metadata()
    if not _fits(model, found.state_dict_metadata) or not _ties_hold(model, found.storage_data):
        return None
    prepare(model)
    place(model)
    weights = {name: tensor.detach() for name, tensor in _own(model).items()}
    load(weights, storage_reader=reader)
    return model


def materialise(model: nn.Module, device: torch.device) -> None:
    """Give memory to the parameters of a model that was built without; its buffers keep their values.

    `to_empty` alone would leave the rotary frequencies, which are in no file, undefined.

    Args:
        model: A sharded transformers model.
        device: Where its memory is.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])


def _folder(path: str) -> str | None:
    """The folder with the safetensors files of a model, fetched from the hub where needed; None without any."""
    if path.endswith(".gguf"):
        return None
    for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        file = cached_file(path, name, _raise_exceptions_for_missing_entries=False)
        if file is None:
            continue
        if name == SAFE_WEIGHTS_INDEX_NAME:
            get_checkpoint_shard_files(path, file)
        return str(Path(file).parent)
    return None


def _empty(spec: ModelSpec) -> nn.Module:
    """The model with its parameters on the meta device and its buffers, such as rotary frequencies, real."""
    config = AutoConfig.from_pretrained(spec.path)
    with init_empty_weights():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, spec.dtype))
    model.tie_weights()  # one tensor before it is sharded is one after
    model.generation_config = generation_config(spec.path) or model.generation_config
    return model  # type: ignore[no-any-return]


def _own(model: nn.Module) -> dict[str, Tensor]:
    """What a file must hold: parameters and persistent buffers, of tied ones the first."""
    state = model.state_dict(keep_vars=True)
    first = {id(tensor): name for name, tensor in reversed(state.items())}
    return {name: tensor for name, tensor in state.items() if first[id(tensor)] == name}


def _fits(model: nn.Module, files: _Files) -> bool:
    """Whether the files hold each weight once, under the model's own name, unquantised."""
    if getattr(model.config, "quantization_config", None) is not None:
        return False
    wanted = _own(model)
    return all(
        name in files and files[name].size == tensor.shape and len(files[name].chunks) == 1
        for name, tensor in wanted.items()
    )


def _ties_hold(model: nn.Module, files: Any) -> bool:
    """Whether tied weights that the files hold twice are equal: transformers does not tie them otherwise."""
    places = {index.fqn: entry.relative_path for index, entry in files.items()}
    state = model.state_dict(keep_vars=True)
    names = {id(tensor): name for name, tensor in _own(model).items()}
    twins = [(name, names[id(tensor)]) for name, tensor in state.items() if names[id(tensor)] != name]
    return all(
        torch.equal(*(_read(places[name], name) for name in pair)) for pair in twins if places.keys() >= set(pair)
    )


def _read(file: str, name: str) -> Tensor:
    """One weight of a file."""
    with safe_open(file, framework="pt") as content:
        return content.get_tensor(name)  # type: ignore[no-any-return]
