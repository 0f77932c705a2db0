"""Rows laid end to end: no padding, and a prompt computed once for all the rows that share it.

Everything in a decoder but its attention treats tokens one by one, so the tokens of many rows may stand in one line.
Attention is given the spans of the line that belong together. It works on whole rows, the shared prompt's queries
among them, and throws those away again: cheaper than a mask, and never dearer than rows that share nothing.

Models that mix tokens elsewhere (recurrences, convolutions) or ask more of their attention than a softmax over what
came before (soft caps, sinks, windows shorter than a row) are refused with `UnknownAttentionError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gopd_lightning.attention import UnknownAttentionError, attending_by, check_plain
from gopd_lightning.records import TokenIds

_NAME = "gopd_packed"  # no mask function goes by this name, so that models make no mask


@dataclass(frozen=True)
class Span:
    """Tokens start to stop of the line, which attend to one another and to an earlier prompt (or none)."""

    start: int
    stop: int
    prompt: slice | None = None

    @property
    def length(self) -> int:
        """Tokens of the row, those of the earlier prompt included."""
        return self.stop - self.start + (0 if self.prompt is None else self.prompt.stop - self.prompt.start)


class Line:
    """Rows in one line, as a model takes them.

    Attributes:
        ids: Token ids (T), each distinct prompt once, last response tokens left out (they predict nothing).
        places: Position (T) of each token in its row.
        spans: What attends to what; in order they cover the line.
        picked: Positions (N) of the line that predict the response tokens, in row order.
        attended: Calls of the attention so far.
    """

    def __init__(self, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> None:
        self.ids: list[int] = []
        self.places: list[int] = []
        self.spans: list[Span] = []
        self.picked: list[int] = []
        self.attended = 0
        self._prompts: dict[tuple[int, ...], slice] = {}
        for prompt, response in zip(prompts, responses, strict=True):
            self._add(tuple(prompt), response)

    def __len__(self) -> int:
        return len(self.ids)

    def _add(self, prompt: tuple[int, ...], response: TokenIds) -> None:
        """Append a row: whole when its prompt is new, else its response only."""
        start, shared = len(self.ids), self._prompts.get(prompt)
        body = list(response[:-1])
        if shared is None:
            self._prompts[prompt] = slice(start, start + len(prompt))
            self._append([*prompt, *body], 0)
            self.spans.append(Span(start, len(self.ids)))
        elif body:
            self._append(body, len(prompt))
            self.spans.append(Span(start, len(self.ids), shared))
        self.picked += [self._prompts[prompt].stop - 1, *range(len(self.ids) - len(body), len(self.ids))]

    def _append(self, ids: list[int], first: int) -> None:
        self.ids += ids
        self.places += range(first, first + len(ids))


def by_prompt(prompts: Sequence[TokenIds], responses: Sequence[TokenIds], max_tokens: int) -> list[list[int]]:
    """Row numbers in lots that make lines of at most `max_tokens`, the rows of a prompt side by side.

    Args:
        prompts: Prompt ids of each row.
        responses: Response ids of each row.
        max_tokens: Tokens of a line; a longer row gets a line of its own.
    """
    keys = [tuple(prompt) for prompt in prompts]
    seen = {key: i for i, key in reversed(list(enumerate(keys)))}
    lots: list[list[int]] = []
    used, last = max_tokens, None
    for i in sorted(range(len(keys)), key=lambda i: seen[keys[i]]):
        more = len(responses[i]) - 1 + (0 if keys[i] == last else len(keys[i]))
        if used + more > max_tokens:
            lots.append([])
            used, more = 0, len(responses[i]) - 1 + len(keys[i])
        lots[-1].append(i)
        used, last = used + more, keys[i]
    return lots


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
    """Last hidden states (N, H) that predict the response tokens of a line, head left out.

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
        if line.attended != model.config.get_text_config().num_hidden_layers:
            raise UnknownAttentionError(f"{line.attended} attention layers only")
    except UnknownAttentionError:
        _REFUSED.add(model)
        raise
    return out.last_hidden_state[0, torch.tensor(line.picked, device=device)]  # type: ignore[no-any-return]


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
    """Attention over the spans of a line, in the form that transformers calls it.

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
    if sliding_window is not None and any(span.length > sliding_window for span in line.spans):
        raise UnknownAttentionError("sliding_window")
    line.attended += 1
    parts = []
    for span in line.spans:
        row = (_row(tensor, span) for tensor in (query, key, value))
        out, _ = sdpa_attention_forward(module, *row, None, scaling=scaling, is_causal=True)
        parts.append(out[:, span.start - span.stop :])
    return torch.cat(parts, 1), None


def _row(tensor: Tensor, span: Span) -> Tensor:
    """A row's own part of a (1, heads, T, size) tensor, its prompt before it."""
    own = tensor[:, :, span.start : span.stop]
    return own if span.prompt is None else torch.cat([tensor[:, :, span.prompt], own], 2)


_REFUSED: WeakSet[nn.Module] = WeakSet()  # models that turned out not to take packed rows
AttentionInterface.register(_NAME, packed_attention)
