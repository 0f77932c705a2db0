"""Attention functions of our own in a transformers model: put in for a while, and only where softmax is all it asks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_HARMLESS = {"position_ids", "use_cache", "cache_position", "output_attentions", "output_hidden_states"}


class UnknownAttentionError(Exception):
    """The model does more than plain softmax attention (caps, sinks, windows, biases), or mixes tokens elsewhere."""


def check_plain(asked: Mapping[str, Any]) -> None:
    """Refuse what a model asks of its attention beyond a softmax over scaled scores.

    Args:
        asked: Further arguments that the model passes to its attention.

    Raises:
        UnknownAttentionError: One of them means something.
    """
    more = {name for name, value in asked.items() if value is not None and value is not False} - _HARMLESS
    if more:
        raise UnknownAttentionError(", ".join(sorted(more)))


@contextmanager
def attending_by(model: Any, name: str) -> Iterator[None]:
    """Let a model attend through a registered function for a while, and through its own attention again after.

    Args:
        model: A transformers model, or a PEFT model around one.
        name: The function's name in `transformers.AttentionInterface`.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
