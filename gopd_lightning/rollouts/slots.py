"""A cache whose rows are slots: written in place, left and taken again while others go on.

transformers' own growing cache makes a new copy of everything at every token. Here a row's keys and values stay where
they are; the tensors are copied only when they have to be longer, once in `_BLOCK` tokens.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from gopd_lightning.lines import Line

_BLOCK = 64


class Joining(NamedTuple):
    """Prompts that are being read.

    Attributes:
        prompts: How many.
        n: Rows of each.
        line: They stand in one line, in this order of their numbers; None: they are padded on the right, in order.
    """

    prompts: int
    n: int
    line: tuple[Line, Sequence[int]] | None = None


class Slots:
    """What the layers of one cache share: how many rows there are and how much of each is filled.

    Attributes:
        lengths: (B,) int64 on the host, tokens held by each row of the batch.
        joining: The prompts while they are read, for rows behind those of the batch; None while rows go on.
        spare: Rows that tensors are made with at least, so that rows that join later find room.
    """

    def __init__(self, spare: int) -> None:
        self.lengths = torch.zeros(0, dtype=torch.long)
        self.joining: Joining | None = None
        self.spare = spare
        self._found: tuple[Tensor, Tensor] | None = None

    @property
    def longest(self) -> int:
        """Tokens held by the longest row."""
        return int(self.lengths.max()) if len(self.lengths) else 0

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Row and column (B,) of each row's next token."""
        if self._found is None:
            self._found = torch.arange(len(self.lengths), device=device), self.lengths.to(device)
        return self._found

    def change(self, lengths: Tensor) -> None:
        """Take new lengths."""
        self.lengths, self._found = lengths, None


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, (rows, heads, columns, size)."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin with no room at all, in the dtype and on the device of the first states."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_zeros(0, key_states.shape[1], 0, key_states.shape[3])
        self.values = value_states.new_zeros(0, value_states.shape[1], 0, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write new states into their places, and give what the new tokens may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.slots.joining is not None:
            self._join(key_states, value_states, self.slots.joining)
            return key_states, value_states
        rows, columns = len(key_states), self.slots.longest + 1
        self._fit(rows, columns)
        place = self.slots.places(self.device)
        self.keys[place[0], :, place[1]] = key_states[:, :, 0]
        self.values[place[0], :, place[1]] = value_states[:, :, 0]
        return self.keys[:rows, :, :columns], self.values[:rows, :, :columns]

    def move(self, to: Tensor, rows: Tensor, columns: int) -> None:
        """Copy the first columns of some rows over those of others."""
        for states in (self.keys, self.values):
            states[to, :, :columns] = states[rows, :, :columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that new tokens look at, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns before the new tokens."""
        return 0 if self.slots.joining is not None else self.slots.longest

    def get_max_length(self) -> int:
        """No bound."""
        return -1

    get_max_cache_shape = get_max_length  # its name before transformers 5.17

    def _join(self, keys: Tensor, values: Tensor, joining: Joining) -> None:
        """Write each prompt's states n times, behind the rows of the batch."""
        prompts, n, line = joining
        columns = keys.shape[2] if line is None else line[0].longest
        first = len(self.slots.lengths)
        self._fit(first + prompts * n, columns)
        for states, new in ((self.keys, keys), (self.values, values)):
            rows = states[first : first + prompts * n, :, :columns]
            rows = rows.view(prompts, n, *rows.shape[1:])
            if line is None:
                rows.copy_(new[:, None])
                continue
            for number, row in zip(line[1], line[0].whole(new), strict=True):
                rows[number, :, :, : row.shape[2]] = row

    def _fit(self, rows: int, columns: int) -> None:
        """Make room; what is not written yet holds zeros, for masked numbers must be finite."""
        if rows <= self.keys.shape[0] and columns <= self.keys.shape[2]:
            return
        rows = max(rows, self.slots.spare)
        columns = max(-(-columns // _BLOCK) * _BLOCK, self.keys.shape[2])
        self.keys, self.values = self._larger(self.keys, rows, columns), self._larger(self.values, rows, columns)

    def _larger(self, states: Tensor, rows: int, columns: int) -> Tensor:
        """The same rows of the batch in a tensor of another size."""
        larger = states.new_zeros(rows, states.shape[1], columns, states.shape[3])
        kept = states[: len(self.slots.lengths)]
        larger[: len(kept), :, : kept.shape[2]] = kept
        return larger


class SlotCache(Cache):  # type: ignore[misc]
    """A `SlotLayer` for every layer of a model.

    Args:
        layers: Number of layers.
        spare: Rows that it is made for; more make it grow.
    """

    def __init__(self, layers: int, spare: int) -> None:
        self.slots = Slots(spare)
        super().__init__(layers=[SlotLayer(self.slots) for _ in range(layers)])

    def keep(self, order: Sequence[int]) -> None:
        """Go on with some rows only.

        Args:
            order: For each row of the new batch, its number in the old one. Rows that keep their number cost nothing.
        """
        lengths, kept = self.slots.lengths, torch.tensor(order, dtype=torch.long)
        to = (kept != torch.arange(len(kept))).nonzero().squeeze(-1)
        if len(to):
            rows, columns, device = kept[to], int(lengths[kept[to]].max()), self.layers[0].device
            to, rows = to.to(device), rows.to(device)
            for layer in self.layers:
                layer.move(to, rows, columns)
        self.slots.change(lengths[kept])
