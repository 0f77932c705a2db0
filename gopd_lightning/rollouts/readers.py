"""How prompts and drawn tokens are read: in slots where the model allows it, left-padded where it does not."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from gopd_lightning.attention import UnknownAttentionError
from gopd_lightning.lines import Line, lots_of
from gopd_lightning.records import TokenIds
from gopd_lightning.rollouts.attention import grouped_queries
from gopd_lightning.rollouts.slots import Joining, SlotCache

_LINE_SHARE = 0.6  # of the padded tokens: with more, one attention a prompt costs what is saved
_TRIED = [[2, 3, 4, 5, 6], [4, 2, 3]], [[2, 3, 4, 5, 6, 2, 4], [2, 3, 4, 5, 6, 3]]  # apart, and alike enough for a line
_NO_LOGITS = torch.zeros(0, dtype=torch.long)  # positions whose logits are wanted


class Reader(Protocol):
    """Reads for a batch of rows that others may join and leave. A prompt's last token is left to the first `step`."""

    joins: bool
    """Whether prompts can join rows that have begun."""

    def reading(self) -> AbstractContextManager[None]:
        """Everything is read inside of this."""

    def join(self, prompts: Sequence[TokenIds], n: int) -> None:
        """Read prompts without their last tokens, for n rows each, side by side behind those of the batch."""

    def step(self, ids: Tensor) -> Tensor:
        """Read one token of each row, (B,), and give the logits after it, (B, V)."""
        ...

    def keep(self, order: list[int]) -> None:
        """Go on with some rows: for each of the new batch, its number in the old one."""


class SlotReader:
    """Every row is as long as it is: prompts join at any time, and no token of padding is looked at.

    Args:
        model: A model for which `reads_in_slots` holds.
        spare: Rows that there will be at most, when more prompts wait; 0: no more will join.
    """

    joins = True

    def __init__(self, model: Any, spare: int = 0) -> None:
        self._model = model
        self._cache = SlotCache(_layers(model), spare)
        self._slots = self._cache.slots
        self._device = next(model.parameters()).device
        self._dtype = next(model.parameters()).dtype

    def reading(self) -> AbstractContextManager[None]:
        """See `Reader.reading`."""
        return grouped_queries(self._model)

    def join(self, prompts: Sequence[TokenIds], n: int) -> None:
        """See `Reader.join`."""
        rows = [prompt[:-1] for prompt in prompts]
        lengths = torch.tensor([len(row) for row in rows])
        if int(lengths.max()) > 0 and not self._read_line(rows, n):
            self._read_padded(rows, n)
        self._slots.change(torch.cat([self._slots.lengths, lengths.repeat_interleave(n)]))

    def _read_padded(self, rows: Sequence[TokenIds], n: int) -> None:
        """Padding on the right needs no mask, for no token looks ahead."""
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        positions = torch.arange(ids.shape[1]).expand(len(rows), -1)
        self._read(ids, positions, Joining(len(rows), n))

    def _read_line(self, rows: Sequence[TokenIds], n: int) -> bool:
        """What prompts begin with alike is read once, where that is worth it; whether it was."""
        if self._device.type != "cpu" or not all(rows):
            return False
        (order,) = lots_of(rows, float("inf"))
        line = Line([rows[i] for i in order])
        if len(line) > _LINE_SHARE * len(rows) * line.longest:
            return False
        joining = Joining(len(rows), n, (line, order))
        self._read(torch.tensor([line.ids]), torch.tensor([line.places]), joining, line=line)
        if line.calls != len(self._cache.layers):
            raise UnknownAttentionError(f"{line.calls} attention layers only")
        return True

    def _read(self, ids: Tensor, positions: Tensor, joining: Joining, **more: Any) -> None:
        self._slots.joining = joining
        ids, positions, nothing = (x.to(self._device) for x in (ids, positions, _NO_LOGITS))
        _forward(self._model, ids, None, positions, self._cache, nothing, **more)
        self._slots.joining = None

    def step(self, ids: Tensor) -> Tensor:
        """See `Reader.step`."""
        positions = self._slots.places(self._device)[1][:, None]
        logits = _forward(self._model, ids[:, None], self._mask(positions), positions, self._cache, 1)
        self._slots.change(self._slots.lengths + 1)
        return logits[:, -1]

    def keep(self, order: list[int]) -> None:
        """See `Reader.keep`."""
        self._cache.keep(order)

    def _mask(self, positions: Tensor) -> Tensor | None:
        """(B, 1, 1, L) to be added to scores; None where all rows are equally long."""
        lengths = self._slots.lengths
        if bool((lengths == lengths[0]).all()):
            return None
        hidden = torch.arange(self._slots.longest + 1, device=self._device) > positions
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(hidden, float("-inf"))[:, None, None, :]


class PaddedReader:
    """Left-padded prompts and transformers' growing cache: for every model, and slower.

    Args:
        model: A causal language model.
    """

    joins = False

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = next(model.parameters()).device

    def reading(self) -> AbstractContextManager[None]:
        """See `Reader.reading`."""
        return nullcontext()

    def join(self, prompts: Sequence[TokenIds], n: int) -> None:
        """See `Reader.join`; the batch must be empty."""
        width = max(len(prompt) for prompt in prompts) - 1
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) + 1 :] = torch.tensor(prompt[:-1])
            mask[i, width - len(prompt) + 1 :] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        self._cache = DynamicCache(config=self._model.config)
        if width > 0:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            _forward(self._model, ids, mask, positions, self._cache, 1)
            self._cache.batch_repeat_interleave(n)
        self._attended = mask.repeat_interleave(n, 0)

    def step(self, ids: Tensor) -> Tensor:
        """See `Reader.step`."""
        self._attended = torch.cat([self._attended, self._attended.new_ones(len(ids), 1)], dim=1)
        positions = self._attended.sum(1, keepdim=True) - 1
        return _forward(self._model, ids[:, None], self._attended, positions, self._cache, 1)[:, -1]

    def keep(self, order: list[int]) -> None:
        """See `Reader.keep`."""
        rows = torch.tensor(order, dtype=torch.long, device=self._device)
        self._cache.batch_select_indices(rows)
        self._attended = self._attended[rows]


def reads_in_slots(model: Any) -> bool:
    """Whether a `SlotReader` can read for a model: full attention in every layer, and the same logits as plainly.

    Args:
        model: A causal language model in evaluation mode.

    Returns:
        False for sliding windows, states of other kinds, attention with more to it than a softmax, and models whose
        attention cannot be chosen.
    """
    config = model.config
    layers = DynamicCache(config=config).layers
    if getattr(config, "sub_configs", None) or any(type(layer) is not DynamicLayer for layer in layers):
        return False
    if not model._can_set_attn_implementation():
        return False
    try:
        return all(_agree(model, prompts) for prompts in _TRIED)
    except UnknownAttentionError:
        return False


def _agree(model: Any, prompts: Sequence[TokenIds]) -> bool:
    """Whether both readers give the same logits, a token further."""
    found, plain = (_tried(reader, prompts) for reader in (SlotReader(model), PaddedReader(model)))
    tolerance = 1e-3 if plain.dtype == torch.float32 else 0.1
    return bool((found - plain).abs().max() <= tolerance * plain.abs().max())


def _tried(reader: SlotReader | PaddedReader, prompts: Sequence[TokenIds]) -> Tensor:
    """Logits (2, V) of two prompts, a token further."""
    ids = torch.tensor([3, 4], device=reader._device)
    with reader.reading():
        reader.join(prompts, 1)
        reader.step(ids)
        return reader.step(ids + 1)


def _layers(model: Any) -> int:
    """Layers that keep something of the past."""
    return len(DynamicCache(config=model.config).layers)


def _forward(
    model: Any,
    ids: Tensor,
    mask: Tensor | None,
    positions: Tensor,
    cache: Any,
    logits_to_keep: int | Tensor,
    **more: Any,
) -> Tensor:
    """Logits (B, positions kept, V) of a model that goes on from a cache."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=logits_to_keep,
        **more,
    )
    return output.logits  # type: ignore[no-any-return]
