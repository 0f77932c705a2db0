"""Models as they would be, without memory: PyTorch's fake tensors have shapes and dtypes only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from gopd_lightning.cost import Shape, shape_of
from gopd_lightning.models.folders import adapter_base, base_path, hub_arguments
from gopd_lightning.models.scoring import LocalScorer, unwrapped
from gopd_lightning.models.specs import ModelSpec, StudentSpec
from gopd_lightning.rollouts.thin_products import gaining
from gopd_lightning.strategies import blocks


class Sizes(NamedTuple):
    """Numbers of weights of a model.

    Attributes:
        all: Of the model.
        trained: Of those that get gradients.
        largest: Of its largest trained tensor.
        block: Of one decoder block.
        rest: Of what is in no block: embeddings, last norm, head.
        head: Of the head.
        laid_out: Of what decoding on a CPU lays out anew (see `rollouts.thin_products`).
        width: Bytes of one weight as it is loaded.
        layers: Number of decoder blocks.
        hidden: Width of a hidden state.
        cost: Its shape as far as FLOPs go; None where that is not known.
    """

    all: int
    trained: int
    largest: int
    block: int
    rest: int
    head: int
    laid_out: int
    width: int
    layers: int
    hidden: int
    cost: Shape | None


@contextmanager
def without_memory() -> Iterator[None]:
    """Tensors made inside have no memory."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def imitation(spec: ModelSpec, dtype: torch.dtype | None = None) -> nn.Module:
    """A model from its config.json alone, with the adapter that it would have; inside `without_memory`.

    Args:
        spec: The model.
        dtype: Of its weights; None takes the specification's.
    """
    config = AutoConfig.from_pretrained(**hub_arguments(base_path(spec.path)))
    model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype or getattr(torch, spec.dtype))
    lora = spec.lora if isinstance(spec, StudentSpec) else None
    if lora is None and adapter_base(spec.path) is None:
        return model  # type: ignore[no-any-return]
    from peft import LoraConfig, PeftConfig, get_peft_model

    adapter = LoraConfig(task_type="CAUSAL_LM", **lora) if lora else PeftConfig.from_pretrained(spec.path)
    return get_peft_model(model, adapter)  # type: ignore[no-any-return]


def sizes_of(model: nn.Module, vocabulary: int) -> Sizes:
    """What a model weighs.

    Args:
        model: A transformers model, real or not.
        vocabulary: Number of real token ids.
    """
    inner: Any = unwrapped(model)
    own = list(model.parameters())
    trained = [p.numel() for p in own if p.requires_grad]
    split = blocks(model)
    in_blocks = sum(p.numel() for block in split for p in block.parameters())
    config = inner.config.get_text_config()
    return Sizes(
        all=sum(p.numel() for p in own),
        trained=sum(trained),
        largest=max(trained, default=0),
        block=in_blocks // max(1, len(split)),
        rest=sum(p.numel() for p in own) - in_blocks,
        head=inner.get_output_embeddings().weight.numel(),
        laid_out=sum(layer.weight.numel() for layer in gaining(model)),
        width=own[0].element_size(),
        layers=max(1, len(split)),
        hidden=config.hidden_size,
        cost=shape_of(model, vocabulary),
    )


def kept_for_backward(model: nn.Module, rows: int, prompt: int, response: int) -> int:
    """Bytes of activations that a forward pass of the trunk keeps for the backward pass; inside `without_memory`.

    Args:
        model: The student, from `imitation`.
        rows: Rows of the micro-batch.
        prompt: Tokens of each prompt.
        response: Tokens of each response.
    """
    kept: dict[int, Tensor] = {}
    weights = {p.untyped_storage()._cdata for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        LocalScorer(model.train(), 1).score([[i] * prompt for i in range(rows)], [[0] * response] * rows)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
