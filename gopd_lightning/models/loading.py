"""Loading causal language models: folders, hub ids, GGUF files, PEFT adapters."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from gopd_lightning.errors import InputError
from gopd_lightning.models.folders import adapter_base, hub_arguments
from gopd_lightning.models.shards import Work, load_into_shards
from gopd_lightning.models.specs import ModelSpec, StudentSpec


def load_causal_lm(spec: ModelSpec) -> nn.Module:
    """A causal language model in evaluation mode on the CPU.

    A GGUF file counts as quantised after loading and refuses to be saved; its weights are copied into a model
    built from the configuration.
    """
    dtype = getattr(torch, spec.dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(**hub_arguments(spec.path), dtype=dtype)
    if spec.path.endswith(".gguf"):
        plain = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
        plain.load_state_dict(model.state_dict())
        plain.generation_config = model.generation_config
        model = plain
    model.eval()
    return model  # type: ignore[no-any-return]


def load_adapters(base: nn.Module, paths: Sequence[str]) -> nn.Module:
    """A PEFT model with every adapter of `paths`, each under its path as name (dots are not allowed there).

    Adapters take the dtype of their base: nothing is trained, and float32 beside bfloat16 would cost conversions.
    """
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(
        base, paths[0], adapter_name=adapter_name(paths[0]), autocast_adapter_dtype=False
    )
    for path in paths[1:]:
        model.load_adapter(path, adapter_name=adapter_name(path), autocast_adapter_dtype=False)
    return model  # type: ignore[no-any-return]


def adapter_name(path: str) -> str:
    """A name for an adapter that PEFT accepts as part of a module name."""
    return path.replace(".", "_").replace("/", "_")


def load_student(spec: StudentSpec, place: Work | None = None) -> nn.Module:
    """The student, trainable: all weights, a given adapter, or a new LoRA adapter.

    It is in training mode (gradient checkpointing asks for it) with every dropout off: the policy that is scored
    must be the one that was sampled from.

    Args:
        spec: The student.
        place: Shards a model in place, or None.

    Raises:
        InputError: Both a given adapter and `lora`, or an adapter that is to be sharded.
    """
    base = adapter_base(spec.path)
    if base is not None and spec.lora is not None:
        raise InputError("model.student: path is an adapter already; give lora or an adapter, not both")
    if place is not None and (base is not None or spec.lora is not None):
        raise InputError("trainer.strategy: FSDP2 cannot shard a student with an adapter; use ddp")
    if place is not None:
        return load_sharded(spec, partial(_make_trainable, spec), place)
    model = _with_adapter(load_causal_lm(ModelSpec(path=base or spec.path, dtype=spec.dtype)), spec, base is not None)
    _make_trainable(spec, model)
    return model


def load_frozen(spec: ModelSpec, adapters: Sequence[str], place: Work | None = None) -> nn.Module:
    """A model that is never trained, with the adapters that are asked of it.

    Args:
        spec: The full model.
        adapters: Adapter folders on it. With any, every rank holds the model whole.
        place: Shards a model in place, or None.
    """
    if place is not None and not adapters:
        return load_sharded(spec, _freeze, place)
    model = load_causal_lm(spec)
    if adapters:
        model = load_adapters(model, adapters)
    _freeze(model)
    return model


def load_sharded(spec: ModelSpec, prepare: Work, place: Work) -> nn.Module:
    """A sharded model: weights read straight into the shards, or, from files that ask for it, read whole first.

    Args:
        spec: The model.
        prepare: What to do to it before it is sharded.
        place: Shards it in place.
    """
    model = load_into_shards(spec, prepare, place)
    if model is None:
        model = load_causal_lm(spec)
        prepare(model)
        place(model)
    return model


def _with_adapter(model: nn.Module, spec: StudentSpec, given: bool) -> nn.Module:
    """The student's base with the adapter at its path, with a new one, or as it is."""
    base: Any = model
    if given:
        from peft import PeftModel

        model = PeftModel.from_pretrained(base, spec.path, is_trainable=True)
    elif spec.lora is not None:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **spec.lora))
    return model


def _make_trainable(spec: StudentSpec, model: Any) -> None:
    """Training mode, every dropout off, and gradient checkpointing where it is asked for."""
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    model.train()


def _freeze(model: nn.Module) -> None:
    model.eval().requires_grad_(False)
