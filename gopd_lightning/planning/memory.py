"""Bytes of one rank: what stays, and what each phase of a step adds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gopd_lightning.logprobs import chunk_rows
from gopd_lightning.models.folders import adapter_base, base_path
from gopd_lightning.models.scoring import LINE_TOKENS, PADDED_TOKENS
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.planning.devices import Device
from gopd_lightning.planning.models import Sizes, imitation, kept_for_backward, sizes_of, without_memory
from gopd_lightning.planning.settings import Run, loaded

_COPIES = 4  # float32 copies of a chunk of logits that an accelerator makes at a time; a CPU makes small ones
_SLOT_BLOCK = 64


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What was found of the models of a run.

    Attributes:
        student: The student.
        frozen: The frozen models by name.
        optimizer: Bytes of the optimizer's state for the whole student.
        activations: Bytes kept for the backward pass of the largest micro-batch.
        micro_batch: Rows of the largest micro-batch.
        dtype: What the student computes in.
        vocabulary: Real token ids.
    """

    student: Sizes
    frozen: Mapping[str, Sizes]
    optimizer: int
    activations: int
    micro_batch: int
    dtype: torch.dtype
    vocabulary: int


def needs_of(run: Run, module: Any) -> Needs:
    """Look at all models, without their weights.

    Args:
        run: The run.
        module: The module.
    """
    vocabulary, spec = module.vocabulary.size, module.spec
    own = getattr(torch, run.fsdp.compute_dtype) if run.fsdp else run.autocast or getattr(torch, spec.dtype)
    rows = max(1, min(run.rows, module.max_micro_batch_tokens // (run.prompt + run.response)))
    with without_memory():
        module.student = imitation(spec)
        student, optimizer = sizes_of(module.student, vocabulary), _optimizer_bytes(module)
        module.student = None
        kept = kept_for_backward(imitation(spec, own), rows, run.prompt, run.response)
        frozen = {name: sizes_of(imitation(given), vocabulary) for name, given in loaded(module).items()}
    if spec.gradient_checkpointing:  # a block's inputs of all blocks, and all of the block that is recomputed
        tokens = rows * (run.prompt + run.response)
        kept = kept // student.layers + student.layers * tokens * student.hidden * own.itemsize
    if run.autocast is not None:
        kept += student.all * run.autocast.itemsize  # the weights' casts are kept for the backward pass
    return Needs(
        student=student,
        frozen=frozen,
        optimizer=optimizer,
        activations=kept,
        micro_batch=rows,
        dtype=own,
        vocabulary=vocabulary,
    )


def memory_of(run: Run, module: Any, needs: Needs, device: Device) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Bytes of a rank.

    Args:
        run: The run.
        module: The module.
        needs: From `needs_of`.
        device: The rank's device.

    Returns:
        What stays in memory by name, and by phase what it adds by name.
    """
    student = needs.student
    stays = {
        "program": device.program,
        "weights": student.all * student.width // run.parts,
        "optimizer": needs.optimizer // run.parts,
        "frozen models": sum(_frozen(run, module, needs).values()),
    }
    gradients = {"gradients": _gradients(run, needs)}
    width = student.width // run.parts
    update = student.largest * width * 2 if device.cpu else student.trained * width
    phases = {
        "rollout": _rollout(run, needs, device),
        "score": _score(run, module, needs, device),
        "train": gradients | _train(run, module, needs, device),
        "update": gradients | {"optimizer's own": update},
    }
    return stays, {name: parts for name, parts in phases.items() if parts}


def _optimizer_bytes(module: Any) -> int:
    """Bytes of the optimizers' state, by one step without memory."""
    total = 0
    for optimizer in module.make_optimizers():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        states = (value for state in optimizer.state.values() for value in state.values())
        total += sum(value.untyped_storage().nbytes() for value in states if isinstance(value, torch.Tensor))
    return total


def _frozen(run: Run, module: Any, needs: Needs) -> dict[tuple[str, str], int]:
    """Bytes of the frozen models that are in memory at a time, of equal ones once."""
    whole = {_trunk(spec) for spec in loaded(module).values() if adapter_base(spec.path)}
    found = {}
    for name, spec in loaded(module).items():
        sizes, parts = needs.frozen[name], 1 if _trunk(spec) in whole else run.frozen_parts
        found[_trunk(spec)] = sizes.all * sizes.width // parts
    largest = sorted(found, key=lambda trunk: found[trunk], reverse=True)
    return {trunk: found[trunk] for trunk in largest[: module.max_loaded_models]}


def _trunk(spec: ModelSpec) -> tuple[str, str]:
    return base_path(spec.path), spec.dtype


def _gradients(run: Run, needs: Needs) -> int:
    """Gradients of the trained weights: a sharded student's are reduced after every micro-batch."""
    own = needs.student.trained * needs.student.width
    if run.fsdp is None:
        return own * (2 if run.ddp else 1)  # DistributedDataParallel keeps its own copy of them
    return own // run.parts


def _gathered(sizes: Sizes, width: int) -> int:
    """A sharded model's weights that are whole at a time: two blocks, and what is in no block."""
    return (2 * sizes.block + sizes.rest) * width


def _rollout(run: Run, needs: Needs, device: Device) -> dict[str, int]:
    """A copy of a sharded student, or of one in another dtype; on a CPU weights laid out; its cache."""
    if run.engine is None or not run.engine.inside:
        return {}
    dtype = run.engine.dtype or torch.float32
    width = run.prompt + -(-run.response // _SLOT_BLOCK) * _SLOT_BLOCK
    rows = min(run.rows, max(run.samples, run.engine.max_batch_tokens // width))
    cache = 0 if needs.student.cost is None else needs.student.cost.cache * rows * width * dtype.itemsize
    copy = 0
    if run.fsdp is not None:
        copy = needs.student.all * (needs.student.width + dtype.itemsize)  # all weights gathered, and then copied
    elif run.engine.dtype is not None:
        copy = needs.student.all * dtype.itemsize
    laid_out = needs.student.laid_out * dtype.itemsize if device.cpu else 0
    logits = 3 * 4 * rows * needs.vocabulary
    return {"student's copy": copy, "weights laid out": laid_out, "KV cache": cache, "logits": logits}


def _score(run: Run, module: Any, needs: Needs, device: Device) -> dict[str, int]:
    """The largest frozen model at work."""
    if not needs.frozen:
        return {}
    tokens = min(run.rows * (run.prompt + run.response), LINE_TOKENS if device.cpu else PADDED_TOKENS["cuda"])
    gathered = [_gathered(sizes, sizes.width) for sizes in needs.frozen.values()] if run.frozen_parts > 1 else [0]
    states = max(8 * tokens * sizes.hidden * sizes.width for sizes in needs.frozen.values())
    models = 0 if "hidden" in module.needs else 1
    return {"gathered weights": max(gathered), "activations": states} | _logits(run, needs, device, models, run.rows)


def _train(run: Run, module: Any, needs: Needs, device: Device) -> dict[str, int]:
    """The student's largest micro-batch, and what the frozen models said of the step."""
    hidden = "hidden" in module.needs
    models, student = 1, needs.student
    if hidden:
        models = 1 + max(len(route.models) for route in module.routing.routes.values())
    found = {"activations": needs.activations} | _logits(run, needs, device, models, needs.micro_batch)
    found["gradient of the head"] = student.head * student.width if student.trained > student.head else 0
    if hidden:
        rows = run.rows * run.response
        found["hidden states"] = sum(rows * sizes.hidden * sizes.width for sizes in needs.frozen.values())
    if run.fsdp is not None:
        found["gathered weights"] = _gathered(student, needs.dtype.itemsize)
        found["gradients on their way"] = 2 * student.rest * student.width  # those in no block, and a copy to reduce
    return found


def _logits(run: Run, needs: Needs, device: Device, models: int, rows: int) -> dict[str, int]:
    """Chunks of logits of so many models."""
    one = needs.vocabulary * needs.dtype.itemsize
    chunk = chunk_rows("cpu" if device.cpu else "cuda", needs.vocabulary, needs.dtype.itemsize)
    chunk = min(chunk, rows * run.response)
    copies = 0 if device.cpu else _COPIES * needs.vocabulary * 4
    return {"logits": math.ceil(chunk * (one * models + copies))}
