"""Copies of a student that an engine samples from: a sharded student gathered, another dtype."""

import copy
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter lies on several ranks."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def gathered(student: nn.Module, dtype: torch.dtype | None, replica: nn.Module | None) -> nn.Module:
    """A full copy of a sharded model on this rank; a collective, every rank must call.

    Args:
        student: The sharded model.
        dtype: Of the copy's parameters; None keeps the student's.
        replica: An earlier copy, whose memory is used again.

    Returns:
        The copy, in no need of gradients.
    """
    config: Any = student.config
    plain: Any = type(student)(config) if replica is None else replica
    state = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in student.state_dict().items()}
    if replica is None:
        plain = plain.to(next(iter(state.values())).device)
        for parameter in plain.parameters() if dtype is not None else ():
            parameter.data = parameter.data.to(dtype)
    plain.load_state_dict(copy.copy(state))
    return plain  # type: ignore[no-any-return]


def recast(student: nn.Module, dtype: torch.dtype, replica: nn.Module | None) -> nn.Module:
    """A copy with its parameters in another dtype; buffers, such as the rotary frequencies, keep theirs.

    Args:
        student: The model.
        dtype: Of the copy's parameters.
        replica: An earlier copy of the same model, whose memory is used again.

    Returns:
        The copy, in no need of gradients.
    """
    if replica is None:
        casts = {id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in student.parameters()}
        return copy.deepcopy(student, casts)
    with torch.no_grad():
        for mine, theirs in zip(_tensors(replica), _tensors(student), strict=True):
            mine.copy_(theirs)
    return replica


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers."""
    return [*model.parameters(), *model.buffers()]
