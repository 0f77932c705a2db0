"""Rows through a transformers model in lines (`gopd_lightning.lines`): no padding, and nothing computed twice.

Models that mix tokens elsewhere (recurrences, convolutions) or ask more of their attention than a softmax over what
came before (soft caps, sinks, windows shorter than a row) are refused with `UnknownAttentionError`.
"""

from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from gopd_lightning.attention import UnknownAttentionError, attending_by, check_plain
from gopd_lightning.lines import Line

_NAME = "gopd_packed"  # no mask function goes by this name, so that models make no mask


def packs(model: nn.Module) -> bool:
    """Whether rows of this transformers model may be packed, as far as can be told without running it.

    Args:
        model: The model, out of its PEFT wrapper.
    """
    recomputes = torch.is_grad_enabled() and getattr(model, "is_gradient_checkpointing", False)
    if recomputes or getattr(model, "_is_stateful", True):  # a second forward would find the attention put back
        return False
    return bool(model._can_set_attn_implementation()) and model not in _REFUSED  # type: ignore[operator]


def packed_trunk(model: Any, line: Line) -> Tensor:
    """Last hidden states (T, H) of a line, head left out.

    Args:
        model: The transformers model, out of its PEFT wrapper.
        line: The rows.

    Raises:
        UnknownAttentionError: The model cannot take packed rows; it is remembered, see `packs`.
    """
    device = model.get_input_embeddings().weight.device
    ids, places = (torch.tensor([values], device=device) for values in (line.ids, line.places))
    try:
        with attending_by(model, _NAME):
            out = model.base_model(input_ids=ids, position_ids=places, use_cache=False, line=line)
        if line.calls != model.config.get_text_config().num_hidden_layers:
            raise UnknownAttentionError(f"{line.calls} attention layers only")
    except UnknownAttentionError:
        _REFUSED.add(model)
        raise
    return out.last_hidden_state[0]  # type: ignore[no-any-return]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    line: Line | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over the rows of a line, in the form that transformers calls it.

    Args:
        module: The attention layer.
        query: (1, heads, T, size).
        key: (1, groups, T, size).
        value: (1, groups, T, size).
        attention_mask: None.
        dropout: Zero.
        scaling: Factor of the scores.
        line: The rows.
        sliding_window: How far back a token looks, itself included.
        is_causal: The layer is causal, as all here are.
        **kwargs: What else the model passes on.

    Returns:
        (1, T, heads, size) and no weights.

    Raises:
        UnknownAttentionError: The model asks for more than plain softmax attention.
    """
    check_plain({**kwargs, "attention_mask": attention_mask, "dropout": dropout or None})
    if line is None:
        raise UnknownAttentionError("another attention in between")
    if sliding_window is not None and line.longest > sliding_window:
        raise UnknownAttentionError("sliding_window")
    if not torch.is_grad_enabled():
        return line.attended(query, key, value, scaling), None
    with torch.autocast(query.device.type, enabled=False):  # in bfloat16 torch's gradient takes up to twice as long
        found = line.attended(query.float(), key.float(), value.float(), scaling)
    return found.to(query.dtype), None


_REFUSED: WeakSet[nn.Module] = WeakSet()  # models that turned out not to take packed rows
AttentionInterface.register(_NAME, packed_attention)
