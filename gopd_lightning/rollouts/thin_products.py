"""Products of few rows, as decoding makes them, with weights laid out for that once a rollout (CPU).

Torch's plain product of a few rows reads a layer's weight at a third of the memory's speed or less, because its
library lays the weight out anew in every call. oneDNN takes a weight that is laid out already: the same numbers up to
rounding, in a half to a sixth of the time up to 128 rows (docs/performance.md). The price is a copy of the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALLEST = 2**16  # elements of a weight; smaller ones stay in the cache
_MOST_ROWS = 256  # above, plain products are as fast
_ROWS = 8  # that the layout is made for
_DTYPES = (torch.float32, torch.bfloat16)


class ThinProducts:
    """The large linear layers' weights of a model, laid out.

    Args:
        model: Its weights must stay as they are while this is in use.
    """

    def __init__(self, model: nn.Module) -> None:
        self._packed = {layer: _pack(layer.weight) for layer in gaining(model)}

    @contextmanager
    def used(self) -> Iterator[None]:
        """Multiply by them inside of this, without gradient."""
        for layer, packed in self._packed.items():
            layer.forward = partial(_forward, layer, packed)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self._packed:
                del layer.forward


def gaining(model: nn.Module) -> list[nn.Linear]:
    """The layers whose weights are laid out.

    Args:
        model: Any; its tensors may be without memory.
    """
    # a subclass of a linear layer may do more than multiply
    linear = [layer for layer in model.modules() if type(layer) is nn.Linear]
    return [layer for layer in linear if _gains(layer.weight)]


def _gains(weight: Tensor) -> bool:
    """Whether products with a weight become faster."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return weight.device.type == "cpu" and weight.dtype in _DTYPES and weight.numel() >= _SMALLEST


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    return packed


def _forward(layer: nn.Linear, packed: Tensor, hidden: Tensor) -> Tensor:
    """What the layer gives."""
    if hidden.dtype != packed.dtype or hidden.numel() > _MOST_ROWS * layer.in_features:
        return F.linear(hidden, layer.weight, layer.bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, packed, layer.bias, "none", [], "")
    return found
