"""Drawing token by token for a batch of rows that finish and are replaced by others."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gopd_lightning.records import Completion, TokenIds
from gopd_lightning.rollouts.drawing import draw
from gopd_lightning.rollouts.engine import Done, Sampling, Vocabulary
from gopd_lightning.rollouts.readers import Reader

_JOIN_SHARE = 0.125  # prompts join once there is room for this share of a full batch: a few at a time read badly


@dataclass
class _Rows:
    """The rows of a batch, one element of every tensor each.

    Attributes:
        number: Number of the row in the whole call.
        seed: Its seed.
        token: The token to read next.
        count: Tokens drawn so far.
        ids: (B, max_new_tokens) what has been drawn.
        logprobs: (B, max_new_tokens) float32, of what has been drawn.
    """

    number: Tensor
    seed: Tensor
    token: Tensor
    count: Tensor
    ids: Tensor
    logprobs: Tensor

    def keep(self, order: Tensor) -> "_Rows":
        return _Rows(*(getattr(self, field.name)[order] for field in fields(self)))

    def join(self, others: "_Rows") -> "_Rows":
        pairs = ((getattr(self, field.name), getattr(others, field.name)) for field in fields(self))
        return _Rows(*(torch.cat(pair) for pair in pairs))


class Decoder:
    """Decodes prompts of like lengths with one reader.

    Args:
        reader: Reads prompts and tokens.
        sampling: How to draw.
        vocabulary: Real ids and stop ids.
        device: Where the reader's logits are.
        version: Version of the weights.
        tell: Told every finished row.
    """

    def __init__(
        self,
        reader: Reader,
        sampling: Sampling,
        vocabulary: Vocabulary,
        device: torch.device,
        version: int,
        tell: Done,
    ) -> None:
        self._reader = reader
        self._sampling = sampling
        self._size = vocabulary.size
        self._stops = torch.tensor(vocabulary.stop_ids, device=device)
        self._device = device
        self._version = version
        self._tell = tell

    def run(self, prompts: Sequence[tuple[int, TokenIds]], seeds: Sequence[int], room: int) -> None:
        """Decode until every row is finished or cut.

        Args:
            prompts: Number of each prompt and its tokens; n rows each.
            seeds: Seeds of all rows of the call, the n of prompt 0 first.
            room: Prompts at a time.
        """
        waiting, n = list(prompts), self._sampling.n
        rows = self._begun([], seeds)
        with self._reader.reading():
            while waiting or len(rows.number):
                free = room - -(-len(rows.number) // n)
                if waiting and self._may_join(len(rows.number), free, room, len(waiting)):
                    joining, waiting = waiting[:free], waiting[free:]
                    self._reader.join([prompt for _, prompt in joining], n)
                    rows = rows.join(self._begun(joining, seeds))
                rows = self._step(rows)

    def _may_join(self, rows: int, free: int, room: int, waiting: int) -> bool:
        """Whether it is time to read prompts."""
        if rows == 0:
            return True
        return self._reader.joins and free >= min(waiting, max(1, int(_JOIN_SHARE * room)))

    def _begun(self, prompts: Sequence[tuple[int, TokenIds]], seeds: Sequence[int]) -> _Rows:
        """Rows of prompts, with nothing drawn."""
        n, width = self._sampling.n, self._sampling.max_new_tokens
        numbers = [i * n + k for i, _ in prompts for k in range(n)]
        last = [prompt[-1] for _, prompt in prompts for _ in range(n)]
        columns = [torch.tensor(x, dtype=torch.long) for x in (numbers, [seeds[i] for i in numbers], last)]
        number, seed, token = (column.to(self._device) for column in columns)
        ids = torch.zeros(len(numbers), width, dtype=torch.long, device=self._device)
        return _Rows(number, seed, token, torch.zeros_like(number), ids, torch.zeros_like(ids, dtype=torch.float32))

    def _step(self, rows: _Rows) -> _Rows:
        """Read and draw one token of each row; finished rows leave."""
        logits = self._reader.step(rows.token)[:, : self._size]
        rows.token, logprobs = draw(logits, self._sampling, rows.seed, rows.count)
        rows.ids.scatter_(1, rows.count[:, None], rows.token[:, None])
        rows.logprobs.scatter_(1, rows.count[:, None], logprobs[:, None])
        rows.count += 1
        stopped = torch.isin(rows.token, self._stops)
        leaving = (stopped | (rows.count == self._sampling.max_new_tokens)).nonzero().squeeze(-1)
        if not len(leaving):
            return rows
        self._report(rows.keep(leaving), stopped[leaving].tolist())
        order = _without(len(rows.number), leaving.tolist())
        self._reader.keep(order)
        return rows.keep(torch.tensor(order, dtype=torch.long, device=self._device))

    def _report(self, rows: _Rows, stopped: Sequence[bool]) -> None:
        """Tell about rows that are finished or cut."""
        columns = zip(*(x.tolist() for x in (rows.number, rows.count, rows.ids, rows.logprobs)), stopped, strict=True)
        for number, count, ids, logprobs, finished in columns:
            found = Completion(ids=ids[:count], logprobs=logprobs[:count], finished=finished, version=self._version)
            self._tell(number, found)


def _without(rows: int, leaving: Sequence[int]) -> list[int]:
    """Numbers of the rows that stay, the last ones in the places of those that leave: few have to move."""
    gone, kept = set(leaving), rows - len(leaving)
    last = (row for row in range(kept, rows) if row not in gone)
    return [next(last) if row in gone else row for row in range(kept)]
