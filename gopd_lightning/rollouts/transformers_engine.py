"""A rollout engine in the trainer's own process, on transformers: no server, and no copy of the weights unless asked.

Prompts are sorted by length and decoded as many at a time as a token budget allows; each prompt is read once for its
n samples; rows that are done leave the batch and its cache at once, and waiting prompts take their places.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn

from gopd_lightning.records import Completion, TokenIds
from gopd_lightning.rollouts.decoding import Decoder
from gopd_lightning.rollouts.engine import Done, RolloutEngine, Sampling, Vocabulary
from gopd_lightning.rollouts.readers import PaddedReader, Reader, SlotReader, reads_in_slots
from gopd_lightning.rollouts.replicas import gathered, is_sharded, recast
from gopd_lightning.rollouts.thin_products import ThinProducts


class TransformersEngine:
    """Samples from the student's own module; from a copy when the student is sharded or another dtype is asked for.

    Args:
        max_batch_tokens: Tokens (rows x (prompt + longest response)) decoded at a time; bounds the cache.
        dtype: Dtype to sample in. null takes the student's weights as they are; bfloat16 keeps a copy during the
            rollout, decodes about 1.6 times as fast where the processor has bfloat16 arithmetic, and draws from
            probabilities that differ from the trainer's by its rounding (logged as the engine's gap).
    """

    def __init__(self, max_batch_tokens: int = 65536, dtype: Literal["float32", "bfloat16"] | None = None) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self._model: nn.Module | None = None
        self._source: tuple[int, int] | None = None
        self._student: ref[nn.Module] | None = None
        self._products: ThinProducts | None = None
        self._in_slots: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # by student: copies come and go
        self.version = 0

    def sync(self, student: nn.Module, version: int) -> None:
        """Take the student as it is, or copy it (of a sharded one a collective: every rank must call)."""
        if self._source == (id(student), version):
            return
        same = self._source is not None and self._source[0] == id(student)
        replica = self._model if same and self._model is not student else None
        if is_sharded(student):
            self._model = gathered(student, self.dtype, replica)
        elif self.dtype is not None and any(p.dtype != self.dtype for p in student.parameters()):
            self._model = recast(student, self.dtype, replica)
        else:
            self._model = student
        self._source, self._student = (id(student), version), ref(student)
        self._products = None
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
        device = next(model.parameters()).device
        self._products = self._products or ThinProducts(model)
        training = model.training
        model.eval()
        try:
            with self._products.used():
                decoder = Decoder(partial(self._reader, model), sampling, vocabulary, device, self.version)
                return decoder.decode(prompts, seeds, self.max_batch_tokens, done)
        finally:
            model.train(training)

    def sleep(self) -> None:
        """Drop copies; the student's own module stays where it is."""
        self._products = None
        if self._model is not None and self._source is not None and id(self._model) != self._source[0]:
            self._model, self._source = None, None

    def wake(self) -> None:
        """Nothing to do: the next `sync` copies again."""

    def _reader(self, model: nn.Module, spare: int) -> Reader:
        """In slots where the model allows it."""
        student = (self._student and self._student()) or model
        if student not in self._in_slots:
            self._in_slots[student] = reads_in_slots(model)
        return SlotReader(model, spare) if self._in_slots[student] else PaddedReader(model)


def is_trainers_own(engine: RolloutEngine) -> bool:
    """Whether an engine computes with the trainer's own weights and code, so that its log-probs are the trainer's.

    Args:
        engine: Any rollout engine.
    """
    return isinstance(engine, TransformersEngine) and engine.dtype is None
