"""Rows laid end to end: no padding, and a beginning that rows share computed once for all of them.

Everything in a decoder but its attention treats tokens one by one, so the tokens of many rows may stand in one line.
In the order of a dictionary, a row begins like the one before it for longer than like any other: with a system prompt,
worked examples, or the whole prompt of another sample. Only what differs is new in the line. New tokens attend to whole
rows, put together from the pieces of the line.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attention

from gopd_lightning.records import TokenIds, common_beginning


class Line:
    """Rows in one line, as a model takes them.

    Args:
        rows: Token ids of each. They may come in any order; each shares its beginning with the one before it.

    Attributes:
        ids: Token ids (T), what a row shares with the one before left out.
        places: Position (T) of each token in its row.
        positions: Where in the line the tokens of each row are.
        calls: Of the attention so far.
    """

    def __init__(self, rows: Sequence[TokenIds]) -> None:
        self.ids: list[int] = []
        self.places: list[int] = []
        self.positions: list[list[int]] = []
        self.calls = 0
        self._new: list[int] = []  # how many tokens of each row, the last ones, are new
        self._masks: dict[tuple[int, int, torch.dtype], Tensor] = {}
        before: TokenIds = ()
        for row in rows:
            self._append(row, self.positions[-1][: common_beginning(before, row)] if self.positions else [])
            before = row
        self._cut()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.places) + 1

    def _append(self, row: TokenIds, shared: list[int]) -> None:
        first = len(self.ids)
        self.ids += row[len(shared) :]
        self.places += range(len(shared), len(row))
        self.positions.append([*shared, *range(first, len(self.ids))])
        self._new.append(len(self.ids) - first)

    def _cut(self) -> None:
        """Cut the line wherever a row begins, ends or leaves another: rows are then made of whole pieces."""
        runs = [_runs(positions) for positions in self.positions]
        cuts = sorted({edge for row in runs for run in row for edge in run})
        self._sizes = [stop - start for start, stop in pairwise(cuts)]
        at = {edge: number for number, edge in enumerate(cuts)}
        self._pieces = [[i for start, stop in row for i in range(at[start], at[stop])] for row in runs]

    def whole(self, states: Tensor) -> list[Tensor]:
        """The states of whole rows, (1, groups, row, size) each, from those of the line.

        Args:
            states: (1, groups, T, size).
        """
        pieces = torch.split(states, self._sizes, 2)  # one gradient of the line's size; slices would have one each
        return [torch.cat([pieces[i] for i in row], 2) if len(row) > 1 else pieces[row[0]] for row in self._pieces]

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
        found = []
        for row in zip(torch.split(query, self._new, 2), self.whole(key), self.whole(value), strict=True):
            if new := row[0].shape[2]:
                mask = self._mask(new, row[1].shape[2], query)
                out = attention(*row, mask, is_causal=mask is None, scale=scaling, enable_gqa=True)
                found.append(out.transpose(1, 2))
        return torch.cat(found, 1)

    def _mask(self, new: int, whole: int, like: Tensor) -> Tensor | None:
        """What is added to the scores (new, whole) of a row's last tokens; None where all of them are new."""
        if new == whole:
            return None
        key = (new, whole, like.dtype)
        if key not in self._masks:
            later = torch.ones(new, whole, dtype=torch.bool, device=like.device).triu(whole - new + 1)
            self._masks[key] = torch.zeros_like(later, dtype=like.dtype).masked_fill_(later, float("-inf"))
        return self._masks[key]


def lots_of(rows: Sequence[TokenIds], max_tokens: float) -> list[list[int]]:
    """Row numbers in lots that make lines of at most `max_tokens`, rows that begin alike side by side.

    Args:
        rows: Token ids of each row.
        max_tokens: Tokens of a line; a longer row gets a line of its own.
    """
    keys = [list(row) for row in rows]
    lots: list[list[int]] = []
    used, last = max_tokens, list[int]()
    for i in sorted(range(len(keys)), key=keys.__getitem__):
        new = len(keys[i]) - common_beginning(last, keys[i])
        if not lots or used + new > max_tokens:
            lots.append([])
            used, new = 0, len(keys[i])
        lots[-1].append(i)
        used, last = used + new, keys[i]
    return lots


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Rising positions as the stretches, start and stop, that they are made of."""
    edges = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(positions)) if b != a + 1), len(positions)]
    return [(positions[start], positions[stop - 1] + 1) for start, stop in pairwise(edges)]
