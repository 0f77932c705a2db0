"""Attention of one new token a row over a cache, without a copy of the cache for every query head.

Torch's kernel takes as many key heads as query heads, so transformers copies the keys and values of a
grouped-query model for it at every step. One new token a row has no order to keep among its query heads, so those
that share a key head can be handed over as so many queries of that head, and nothing is copied.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gopd_lightning.attention import attending_by, check_plain
from gopd_lightning.lines import Line

_NAME = "gopd_grouped"  # no mask function goes by this name, so that models take the mask as it is given


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    line: Line | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that transformers calls it.

    Args:
        module: The attention layer.
        query: (B, H, Q, D).
        key: (B, G, L, D) with G dividing H.
        value: (B, G, L, E).
        attention_mask: (B, 1, 1, L), added to the scores of one query a row; None: nothing is hidden, or causal when
            there are several queries.
        dropout: Zero, for nothing is trained here.
        scaling: Factor of the scores.
        line: Rows in one line (B is 1), when prompts are read.
        **kwargs: What else the model passes on.

    Returns:
        (B, Q, H, E) and no weights.

    Raises:
        UnknownAttentionError: The model asks for more than plain softmax attention.
    """
    check_plain(kwargs)
    if line is not None:
        return line.attended(query, key, value, scaling), None
    if query.shape[2] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling)  # type: ignore[no-any-return]
    rows, heads, _, size = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    found = F.scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return found.reshape(rows, 1, heads, value.shape[-1]), None


def grouped_queries(model: Any) -> AbstractContextManager[None]:
    """Let the model attend through `grouped_attention` for a while, see `attention.attending_by`."""
    return attending_by(model, _NAME)


AttentionInterface.register(_NAME, grouped_attention)
