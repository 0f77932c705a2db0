"""Rows laid end to end: no padding, and a beginning that rows share computed once for all of them.

Everything in a decoder but its attention treats tokens one by one, so the tokens of many rows may stand in one line.
In the order of a dictionary, a row begins like the one before it for longer than like any other: with a system prompt,
worked examples, or the whole prompt of another sample. Only what differs is new in the line. New tokens attend to whole
rows, put together from the pieces of the line.

Models that mix tokens elsewhere (recurrences, convolutions) or ask more of their attention than a softmax over what
came before (soft caps, sinks, windows shorter than a row) are refused with `UnknownAttentionError`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attention
from transformers import AttentionInterface

from gopd_lightning.attention import UnknownAttentionError, attending_by, check_plain
from gopd_lightning.records import TokenIds, common_beginning

_NAME = "gopd_packed"  # no mask function goes by this name, so that models make no mask


class Line:
    """Rows in one line, as a model takes them.

    Rows may come in any order; each shares its beginning with the one before it.

    Attributes:
        ids: Token ids (T), what a row shares with the one before left out, and so is the last response token of each
            row, which predicts nothing.
        places: Position (T) of each token in its row.
        picked: Positions (N) of the line that predict the response tokens, in row order.
        calls: Of the attention so far.
    """

    def __init__(self, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]) -> None:
        self.ids: list[int] = []
        self.places: list[int] = []
        self.picked: list[int] = []
        self.calls = 0
        self._masks: dict[tuple[int, int, torch.dtype], Tensor] = {}
        self._rows: list[list[slice]] = []  # the parts of the line that make up each row with new tokens
        self._new: list[int] = []  # how many of its tokens, the last ones, are new
        row: list[int] = []
        positions: list[int] = []
        for prompt, response in zip(prompts, responses, strict=True):
            before, row = row, [*prompt, *response[:-1]]
            positions = self._append(row, positions[: common_beginning(before, row)])
            self.picked += positions[len(prompt) - 1 :]
        self._cut()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def longest(self) -> int:
        """Tokens of the longest row, without its last one."""
        return max(self.places) + 1

    def _append(self, row: list[int], shared: list[int]) -> list[int]:
        """Add what is new in a row; the positions of all of it."""
        first = len(self.ids)
        self.ids += row[len(shared) :]
        self.places += range(len(shared), len(row))
        positions = [*shared, *range(first, len(self.ids))]
        if first < len(self.ids):
            self._rows.append(_runs(positions))
            self._new.append(len(self.ids) - first)
        return positions

    def _cut(self) -> None:
        """Cut the line wherever a row begins, ends or leaves another: rows are then made of whole pieces."""
        cuts = sorted({edge for row in self._rows for part in row for edge in (part.start, part.stop)})
        self._sizes = [stop - start for start, stop in pairwise(cuts)]
        at = {edge: number for number, edge in enumerate(cuts)}
        self._pieces = [[i for part in row for i in range(at[part.start], at[part.stop])] for row in self._rows]

    def attended(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Attention of each row's new tokens to the whole row.

        Args:
            query: (1, heads, T, size).
            key: (1, groups, T, size).
            value: (1, groups, T, size).
            scaling: Factor of the scores; None takes the usual one.

        Returns:
            (1, T, heads, size).
        """
        self.calls += 1
        new = torch.split(query, self._new, 2)  # the gradient of one split is one line, that of each slice another
        found = []
        for rows in zip(new, self._rows_of(key), self._rows_of(value), strict=True):
            mask = self._mask(rows[0].shape[2], rows[1].shape[2], query)
            causal = mask is None
            found.append(attention(*rows, mask, is_causal=causal, scale=scaling, enable_gqa=True).transpose(1, 2))
        return torch.cat(found, 1)

    def _rows_of(self, states: Tensor) -> list[Tensor]:
        """States (1, groups, row, size) of the whole rows that have new tokens."""
        pieces = torch.split(states, self._sizes, 2)
        return [torch.cat([pieces[i] for i in row], 2) if len(row) > 1 else pieces[row[0]] for row in self._pieces]

    def _mask(self, new: int, whole: int, like: Tensor) -> Tensor | None:
        """What is added to the scores (new, whole) of a row's last tokens; None where all of them are new."""
        if new == whole:
            return None
        key = (new, whole, like.dtype)
        if key not in self._masks:
            later = torch.ones(new, whole, dtype=torch.bool, device=like.device).triu(whole - new + 1)
            self._masks[key] = torch.zeros_like(later, dtype=like.dtype).masked_fill_(later, float("-inf"))
        return self._masks[key]


def lots_of(prompts: Sequence[TokenIds], responses: Sequence[TokenIds], max_tokens: int) -> list[list[int]]:
    """Row numbers in lots that make lines of at most `max_tokens`, rows that begin alike side by side.

    Args:
        prompts: Prompt ids of each row.
        responses: Response ids of each row.
        max_tokens: Tokens of a line; a longer row gets a line of its own.
    """
    rows = [[*prompt, *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)]
    lots: list[list[int]] = []
    used, last = max_tokens, list[int]()
    for i in sorted(range(len(rows)), key=rows.__getitem__):
        new = len(rows[i]) - common_beginning(last, rows[i])
        if used + new > max_tokens:
            lots.append([])
            used, new = 0, len(rows[i])
        lots[-1].append(i)
        used, last = used + new, rows[i]
    return lots


def _runs(positions: Sequence[int]) -> list[slice]:
    """Rising positions as the stretches that they are made of."""
    edges = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(positions)) if b != a + 1), len(positions)]
    return [slice(positions[start], positions[stop - 1] + 1) for start, stop in pairwise(edges)]


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
        if line.calls != model.config.get_text_config().num_hidden_layers:
            raise UnknownAttentionError(f"{line.calls} attention layers only")
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
    states = query, key, value
    if torch.is_grad_enabled():  # torch's kernel for the gradient takes up to twice as long in bfloat16
        states = query.float(), key.float(), value.float()
    return line.attended(*states, scaling).to(query.dtype), None


_REFUSED: WeakSet[nn.Module] = WeakSet()  # models that turned out not to take packed rows
AttentionInterface.register(_NAME, packed_attention)
