"""Sampling from the extrapolated target itself: what G-OPD's student is drawn to, without training one.

At every prefix the student's fixed point is Q = softmax(lambda log T + (1 - lambda) log R) (arXiv 2602.12125, equations
12 and 13, at one token), which can be decoded from like any model: two forward passes a token.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.records import Completion, TokenIds
from gopd_lightning.rollouts.decoding import Decoder
from gopd_lightning.rollouts.engine import Done, Sampling, Vocabulary
from gopd_lightning.rollouts.readers import PaddedReader, Reader, SlotReader, reads_in_slots


@dataclass(frozen=True)
class Part:
    """One model of a mixture.

    Attributes:
        weight: Factor of its logits.
        reader: Reads for it.
        using: Puts the model's adapter in force: two models may share a trunk.
    """

    weight: float
    reader: Reader
    using: Callable[[], AbstractContextManager[Any]]


class MixtureReader:
    """Reads with several models; its logits are the weighted sums of theirs, in float32.

    Args:
        parts: The models.
        size: Number of real ids, to which all heads are cut: their padding may differ.
    """

    def __init__(self, parts: Sequence[Part], size: int) -> None:
        self._parts = parts
        self._size = size
        self.joins = all(part.reader.joins for part in parts)

    @contextmanager
    def reading(self) -> Any:
        """See `Reader.reading`."""
        with ExitStack() as stack:
            for part in self._parts:
                stack.enter_context(part.reader.reading())
            yield

    def join(self, prompts: Sequence[TokenIds], n: int) -> None:
        """See `Reader.join`."""
        for part in self._parts:
            with part.using():
                part.reader.join(prompts, n)

    def step(self, ids: Tensor) -> Tensor:
        """See `Reader.step`."""
        total: Any = 0
        for part in self._parts:
            with part.using():
                total = total + part.weight * part.reader.step(ids)[:, : self._size].float()
        return total  # type: ignore[no-any-return]

    def keep(self, order: list[int]) -> None:
        """See `Reader.keep`."""
        for part in self._parts:
            part.reader.keep(order)


class TargetEngine:
    """A rollout engine that samples from softmax(lambda log T + (1 - lambda) log R).

    Args:
        bank: Holds both models; its temperature divides their logits.
        teacher: Name of the teacher in the bank; not run at lambda 0.
        reference: Name of the reference; not run at lambda 1.
        reward_scale: lambda.
        max_batch_tokens: Tokens (rows x (prompt + longest response)) decoded at a time; bounds both caches.
    """

    def __init__(
        self, bank: FrozenBank, teacher: str, reference: str, reward_scale: float, max_batch_tokens: int = 65536
    ) -> None:
        self._bank = bank
        weights = {teacher: reward_scale, reference: 1 - reward_scale}
        self._weights = {name: weight / bank.temperature for name, weight in weights.items() if weight}
        self._max_batch_tokens = max_batch_tokens
        self._in_slots: dict[str, bool] = {}

    def sync(self, student: nn.Module, version: int) -> None:
        """Nothing to do: the target is the same whatever the student has become."""

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
        reader = partial(self._reader, vocabulary.size)
        decoder = Decoder(reader, sampling, vocabulary, self._bank.device, version=0)
        return decoder.decode(prompts, seeds, self._max_batch_tokens, done)

    def sleep(self) -> None:
        """Nothing to do: the bank keeps its models."""

    def wake(self) -> None:
        """Nothing to do."""

    def _reader(self, size: int, spare: int) -> MixtureReader:
        return MixtureReader([self._part(name, weight, spare) for name, weight in self._weights.items()], size)

    def _part(self, name: str, weight: float, spare: int) -> Part:
        using = partial(self._bank.using, name)
        with using() as model:
            if name not in self._in_slots:
                self._in_slots[name] = reads_in_slots(model)
            reader = SlotReader(model, spare) if self._in_slots[name] else PaddedReader(model)
        return Part(weight, reader, using)
