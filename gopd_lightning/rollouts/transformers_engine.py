"""A rollout engine in the trainer's own process, on transformers: no copy of the weights, no server.

Prompts are sorted by length and batched to a token budget; each prompt is read once for its n samples; rows that
are done leave the batch and its cache.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import DynamicCache

from gopd_lightning.records import Completion, TokenIds
from gopd_lightning.rollouts.drawing import draw
from gopd_lightning.rollouts.engine import Done, Sampling, Vocabulary

_DROP_SHARE = 0.125  # copy the cache without its finished rows once this share of them is finished


class TransformersEngine:
    """Samples from the student's own module; from a gathered copy of it when the student is sharded.

    Args:
        max_batch_tokens: Tokens (rows x (prompt + longest response)) decoded at a time; bounds the cache.
    """

    def __init__(self, max_batch_tokens: int = 65536) -> None:
        self.max_batch_tokens = max_batch_tokens
        self._model: nn.Module | None = None
        self._source: tuple[int, int] | None = None
        self.version = 0

    def sync(self, student: nn.Module, version: int) -> None:
        """Take the student as it is, or gather a sharded one (a collective: every rank must call)."""
        if self._source == (id(student), version):
            return
        sharded = any(isinstance(p, DTensor) for p in student.parameters())
        self._model = self._gathered(student) if sharded else student
        self._source = (id(student), version)
        self.version = version

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        vocabulary: Vocabulary,
        done: Done | None = None,
    ) -> list[Completion]:
        """See `RolloutEngine.generate`."""
        model = self._model
        assert model is not None, "sync the engine before it generates"
        completions: list[Completion | None] = [None] * len(seeds)
        training = model.training
        model.eval()
        try:
            for chunk in self._chunks(prompts, sampling):
                rows = [i * sampling.n + k for i in chunk for k in range(sampling.n)]
                decoder = _Decoder(model, sampling, vocabulary, torch.tensor([seeds[r] for r in rows]), self.version)
                if done is not None:
                    decoder.done = partial(_tell, done, rows)
                for row, found in zip(rows, decoder.run([prompts[i] for i in chunk]), strict=True):
                    completions[row] = found
        finally:
            model.train(training)
        return [completion for completion in completions if completion is not None]

    def sleep(self) -> None:
        """Drop a gathered copy; the student's own module stays where it is."""
        if self._model is not None and self._source is not None and id(self._model) != self._source[0]:
            self._model, self._source = None, None

    def wake(self) -> None:
        """Nothing to do: the next `sync` gathers again."""

    def _chunks(self, prompts: Sequence[TokenIds], sampling: Sampling) -> Iterator[list[int]]:
        """Prompt numbers by length, cut so that rows x (longest prompt + response) stays in the budget."""
        chunk: list[int] = []
        for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
            width = len(prompts[i]) + sampling.max_new_tokens
            if chunk and (len(chunk) + 1) * sampling.n * width > self.max_batch_tokens:
                yield chunk
                chunk = []
            chunk.append(i)
        if chunk:
            yield chunk

    def _gathered(self, student: nn.Module) -> nn.Module:
        """A full copy of a sharded model on this rank."""
        config: Any = student.config
        replica = type(student)(config) if self._model is None else self._model
        plain: Any = replica
        state = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in student.state_dict().items()}
        plain.load_state_dict(copy.copy(state))
        return plain.to(next(iter(state.values())).device)  # type: ignore[no-any-return]


class _Decoder:
    """Decodes one batch of prompts; rows are addressed by their number in the batch, samples side by side."""

    def __init__(self, model: Any, sampling: Sampling, vocabulary: Vocabulary, seeds: Tensor, version: int) -> None:
        self.model = model
        self.version = version
        self.done: Done | None = None
        self.sampling = sampling
        self.vocabulary = vocabulary
        self.device = next(model.parameters()).device
        self.seeds = seeds.to(self.device)
        self.stops = torch.tensor(vocabulary.stop_ids, device=self.device)
        rows, width = len(seeds), sampling.max_new_tokens
        self.ids = torch.zeros(rows, width, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(rows, width, device=self.device)
        self.lengths = torch.full((rows,), width, device=self.device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=self.device)
        self.alive = torch.arange(rows, device=self.device)  # rows still in the batch, in its order

    def run(self, prompts: Sequence[TokenIds]) -> list[Completion]:
        """Read the prompts once, then draw token by token until every row is finished or cut."""
        logits, cache, mask = self._prefill(prompts)
        for position in range(self.sampling.max_new_tokens):
            drawn = self._draw(logits, position)
            done = self.finished[self.alive]
            if bool(done.all()) or position + 1 == self.sampling.max_new_tokens:
                break
            if float(done.float().mean()) >= _DROP_SHARE:
                keep = (~done).nonzero().squeeze(-1)
                cache.batch_select_indices(keep)
                self.alive, drawn, mask = self.alive[keep], drawn[keep], mask[keep]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self._forward(drawn[:, None], mask, mask.sum(1, keepdim=True) - 1, cache)
        if self.done is not None:
            self._report((~self.finished).nonzero().squeeze(-1))  # those cut at the limit
        return self._completions(range(len(self.ids)))

    def _prefill(self, prompts: Sequence[TokenIds]) -> tuple[Tensor, DynamicCache, Tensor]:
        """Logits (rows, V), cache and mask (rows, L) after the left-padded prompts, each repeated n times."""
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), width, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            ids[i, width - len(prompt) :] = torch.tensor(prompt)
            mask[i, width - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        cache = DynamicCache(config=self.model.config)
        logits = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        if self.sampling.n > 1:
            cache.batch_repeat_interleave(self.sampling.n)
            logits = logits.repeat_interleave(self.sampling.n, 0)
            mask = mask.repeat_interleave(self.sampling.n, 0)
        return logits, cache, mask

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Float32 logits (rows, V) of the last position over the real vocabulary."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1, : self.vocabulary.size].float()  # type: ignore[no-any-return]

    def _draw(self, logits: Tensor, position: int) -> Tensor:
        """Draw one token a row and note it for the rows that are not finished yet."""
        ids, logprobs = draw(logits, self.sampling, self.seeds[self.alive], position)
        going = ~self.finished[self.alive]
        rows = self.alive[going]
        self.ids[rows, position] = ids[going]
        self.logprobs[rows, position] = logprobs[going]
        stopped = rows[torch.isin(ids[going], self.stops)]
        self.finished[stopped] = True
        self.lengths[stopped] = position + 1
        if self.done is not None:
            self._report(stopped)
        return ids

    def _report(self, rows: Tensor) -> None:
        """Tell about rows that are finished."""
        assert self.done is not None
        numbers = rows.tolist()
        for row, completion in zip(numbers, self._completions(numbers), strict=True):
            self.done(row, completion)

    def _completions(self, rows: Sequence[int]) -> list[Completion]:
        """Rows as records."""
        picked = torch.tensor(rows, dtype=torch.long, device=self.device)
        tensors = (self.ids, self.logprobs, self.lengths, self.finished)
        columns = zip(*(tensor[picked].tolist() for tensor in tensors), strict=True)
        return [
            Completion(ids=ids[:length], logprobs=logprobs[:length], finished=finished, version=self.version)
            for ids, logprobs, length, finished in columns
        ]


def _tell(done: Done, rows: Sequence[int], row: int, completion: Completion) -> None:
    """Hand on a row of a chunk under its number in the whole call."""
    done(rows[row], completion)
