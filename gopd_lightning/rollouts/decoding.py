"""Drawing token by token for a batch of rows that finish and are replaced by others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gopd_lightning.records import Completion, TokenIds
from gopd_lightning.rollouts.drawing import draw
from gopd_lightning.rollouts.engine import Done, Sampling, Vocabulary
from gopd_lightning.rollouts.readers import Reader

_BAND = 1.5  # longest row that may share a batch with the shortest, as a multiple of it
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
    """Decodes prompts, those of like lengths together.

    Args:
        reader: Makes what reads prompts and tokens, given the most rows that there will be when others are to join the
            first ones; 0: none will.
        sampling: How to draw.
        vocabulary: Real ids and stop ids.
        device: Where the readers' logits are.
        version: Version of the weights.
    """

    def __init__(
        self,
        reader: Callable[[int], Reader],
        sampling: Sampling,
        vocabulary: Vocabulary,
        device: torch.device,
        version: int,
    ) -> None:
        self._make_reader = reader
        self._sampling = sampling
        self._size = vocabulary.size
        self._stops = torch.tensor(vocabulary.stop_ids, device=device)
        self._device = device
        self._version = version

    def decode(
        self, prompts: Sequence[TokenIds], seeds: Sequence[int], max_batch_tokens: int, done: Done | None
    ) -> list[Completion]:
        """Sample n completions of every prompt; see `RolloutEngine.generate`.

        Args:
            prompts: Token ids of each prompt.
            seeds: Seeds of all rows, the n of prompt 0 first.
            max_batch_tokens: Tokens (rows x (prompt + longest response)) decoded at a time.
            done: Told every finished row.
        """
        completions: list[Completion | None] = [None] * len(seeds)

        def tell(row: int, completion: Completion) -> None:
            completions[row] = completion
            if done is not None:
                done(row, completion)

        self._tell = tell
        n = self._sampling.n
        for band, room in _bands(prompts, self._sampling, max_batch_tokens):
            self._reader = self._make_reader(room * n if room < len(band) else 0)
            self._run([(i, prompts[i]) for i in band], seeds, room)
        return [completion for completion in completions if completion is not None]

    def _run(self, prompts: Sequence[tuple[int, TokenIds]], seeds: Sequence[int], room: int) -> None:
        """Decode a band, so many prompts at a time, until every row is finished or cut."""
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


def _bands(prompts: Sequence[TokenIds], sampling: Sampling, budget: int) -> Iterator[tuple[list[int], int]]:
    """Prompt numbers by length, in bands of like lengths, and how many of a band fit the budget at a time."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    widths = [len(prompts[i]) + sampling.max_new_tokens for i in order]
    begin = 0
    while begin < len(order):
        end, room = len(order), _room(widths[-1], sampling, budget)
        if room < end - begin:
            end = next((k for k in range(begin, len(order)) if widths[k] > _BAND * widths[begin]), len(order))
            room = _room(widths[end - 1], sampling, budget)
        yield order[begin:end], room
        begin = end


def _room(width: int, sampling: Sampling, budget: int) -> int:
    """Prompts of a width that fit the budget, one at least."""
    return max(1, budget // (width * sampling.n))
