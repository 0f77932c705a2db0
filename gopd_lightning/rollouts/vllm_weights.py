"""A student's weights under the names and shapes that vLLM loads: whole, and with an adapter merged in."""

import copy
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gopd_lightning.errors import InputError

_PEFT_PREFIX = "base_model.model."


def served_config(student: nn.Module) -> Any:
    """A copy of the configuration of the model behind a student, which names its class.

    Args:
        student: A Hugging Face causal language model, sharded or with a PEFT adapter on it or not.
    """
    model = _without_adapter(student)
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):  # what the student was read from, a GGUF file; it is plain by now
        del config.quantization_config
    if not config.architectures:  # models that were built from a configuration do not always say
        config.architectures = [type(model).__name__.removeprefix("FSDP")]
    return config


def served_weights(student: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every weight by its Hugging Face name, one at a time; of a sharded student gathered, by every rank alike.

    Args:
        student: As in `served_config`.

    Yields:
        Name and whole tensor, detached. Tied weights come once.

    Raises:
        InputError: An adapter other than plain LoRA on linear layers.
    """
    if hasattr(student, "peft_config"):
        yield from _merged(student)
        return
    for name, weight in student.named_parameters():
        yield name, _whole(weight)


def _merged(student: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Base weights plus what the active adapter adds to them; the student itself stays as it is."""
    modules = dict(student.named_modules())
    for name, weight in student.named_parameters():
        if ".lora_" in name:
            continue
        owner, _, leaf = name.rpartition(".")
        outer = owner.removesuffix(".base_layer")
        whole = _whole(weight)
        if outer != owner and leaf == "weight":
            whole = whole + _added(modules[outer], outer)
        elif ".modules_to_save." in name or ".original_module." in name:
            raise InputError(f"model.student: the adapter replaces {name}, which VLLMEngine cannot merge")
        yield f"{outer}.{leaf}".removeprefix(_PEFT_PREFIX), whole


def _added(layer: Any, name: str) -> Tensor:
    """What the active adapter adds to a layer's weight."""
    if not hasattr(layer, "get_delta_weight") or any(getattr(layer, "use_dora", {}).values()):
        raise InputError(f"model.student: the adapter on {name} is not plain LoRA, which is all VLLMEngine can merge")
    found: Tensor = sum(layer.get_delta_weight(adapter) for adapter in layer.active_adapters)
    return found.detach()


def _without_adapter(student: nn.Module) -> Any:
    """The Hugging Face model itself."""
    plain: Any = student
    return plain.get_base_model() if hasattr(student, "peft_config") else plain


def _whole(weight: Tensor) -> Tensor:
    """A weight on this rank, gathered when it is sharded."""
    weight = weight.detach()
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
