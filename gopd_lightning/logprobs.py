"""Log-probs and entropies of tokens from hidden states, a few rows of logits at a time.

The one path from hidden states to per-token figures: student, teachers, reference, training and evaluation all
come through `logits_in_chunks`. No `[tokens, vocabulary]` tensor of a whole batch ever exists: the logits of a chunk
of rows are written into a buffer that the next chunk overwrites, and are reduced a few rows at a time, while they
are in the processor's cache. Losses, with their gradients, are in `gopd_lightning.losses`.
Everything returned is float32, natural log, one entry a response token, flat over the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Bytes of logits (tokens x vocabulary) of one model that may exist at a time, by device: large enough for the matrix
# products to run at their full rate, small beside the model; on a CPU at least those of some float32 rows, because each
# chunk reads and writes the head's whole gradient. Measured on CPUs only (docs/performance.md).
CHUNK_BYTES = {"cpu": 96 * 2**20, "cuda": 2**30}
CHUNK_ROWS = {"cpu": 512}
# Logits reduced at a time: several float32 copies of them stay in a CPU's cache. An accelerator takes a chunk whole.
BLOCK_ELEMENTS = {"cpu": 2**19}


@dataclass(frozen=True)
class Head:
    """The output layer of a causal language model: hidden states in, logits over the real vocabulary out.

    Attributes:
        weight: (V, H) output embedding, padding rows already cut off.
        bias: (V,) or None.
        softcap: Bound of `softcap * tanh(logits / softcap)` (Gemma), or None.
        temperature: Divides the logits; 1 scores the model as it is.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    temperature: float = 1.0

    @property
    def size(self) -> int:
        """Number of real token ids V."""
        return self.weight.shape[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (n, V) of hidden states (n, H), differentiable."""
        return self.shaped(F.linear(hidden, self.weight, self.bias))

    def shaped(self, products: Tensor) -> Tensor:
        """Float32 logits (n, V) from the products of hidden states and weight, bias included."""
        logits = products.float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits if self.temperature == 1.0 else logits / self.temperature

    def pull_back(self, gradient: Tensor, products: Tensor) -> Tensor:
        """The gradient (n, V) by the products from that by the logits, in place; the reverse of `shaped`."""
        if self.softcap is not None:
            gradient *= 1 - torch.tanh(products.float() / self.softcap) ** 2
        return gradient if self.temperature == 1.0 else gradient.div_(self.temperature)

    def write_products(self, hidden: Tensor, out: Tensor) -> Tensor:
        """Products (n, V) of hidden states (n, H) and weight, bias included, written into `out` without gradient."""
        torch.mm(hidden.to(self.weight.dtype), self.weight.t(), out=out)
        return out if self.bias is None else out.add_(self.bias)


class States(NamedTuple):
    """What a model says of N tokens, before its head: hidden states (N, H) and the head."""

    hidden: Tensor
    head: Head


@dataclass(frozen=True)
class TokenScores:
    """What a scorer gives: hidden states and head of a local model, or only the log-probs of a served one.

    Attributes:
        states: Hidden states and head; None from a scorer that cannot hand them over.
        logprobs: (N,) log-probs of the sampled tokens where the scorer computed them itself.
        positions: Token positions that went through the trunk: those of real tokens, and all with padding.
    """

    states: States | None = None
    logprobs: Tensor | None = None
    positions: tuple[int, int] = (0, 0)

    def logprobs_of(self, ids: Tensor) -> Tensor:
        """Log-probs (N,) of the sampled tokens."""
        if self.logprobs is not None:
            return self.logprobs
        return token_logprobs(self.local_states(), ids).logprobs

    def local_states(self) -> States:
        """Hidden states and head.

        Raises:
            ValueError: The scorer gave log-probs only; the full estimator needs a local model.
        """
        if self.states is None:
            raise ValueError("this scorer gives log-probs only: use estimator: sampled, or a local model")
        return self.states


class TokenLogprobs(NamedTuple):
    """Log-prob (N,) of each sampled token and entropy (N,) of the distribution that it came from, in nats."""

    logprobs: Tensor
    entropy: Tensor


@torch.no_grad()
def token_logprobs(states: States, ids: Tensor) -> TokenLogprobs:
    """Log-probs of given tokens and the entropy of the distributions they came from, without gradient.

    Args:
        states: Hidden states (N, H) that predict the tokens, and the head.
        ids: (N,) token ids, below the head's size.

    Returns:
        Log-probs (N,) and entropies (N,) in nats.
    """
    columns = Columns(len(ids))
    for rows, chunk in logits_in_chunks([states]):
        for part, (products,) in blocks_of(rows, chunk):
            logits = states.head.shaped(products)
            log_p = logits.log_softmax(-1)
            columns.put(part, [pick(log_p, ids[part]), entropy_of(logits.softmax(-1), log_p)])
    return TokenLogprobs(*columns.all)


def logits_in_chunks(models: Sequence[States]) -> Iterator[tuple[slice, list[Tensor]]]:
    """The heads' products for the same N tokens, in buffers that the next chunk overwrites.

    Args:
        models: Hidden states and heads over one vocabulary, of any hidden sizes.

    Yields:
        The tokens of the chunk, and for each model their products (n, V) in its weight's dtype
        (see `Head.shaped`); the caller may overwrite them.
    """
    tokens = len(models[0].hidden)
    weight = models[0].head.weight
    rows = min(tokens, chunk_rows(weight.device.type, len(weight), weight.element_size()) or tokens)
    buffers = [m.hidden.new_empty(rows, m.head.size, dtype=m.head.weight.dtype) for m in models]
    for start in range(0, tokens, rows):
        chunk = slice(start, min(start + rows, tokens))
        size = chunk.stop - start
        yield chunk, [m.head.write_products(m.hidden[chunk], b[:size]) for m, b in zip(models, buffers, strict=True)]


def blocks_of(rows: slice, chunk: Sequence[Tensor]) -> Iterator[tuple[slice, list[Tensor]]]:
    """A chunk's rows a cacheful at a time: their place in the batch, and the products of each model."""
    size = BLOCK_ELEMENTS.get(chunk[0].device.type, chunk[0].numel()) // chunk[0].shape[1] or 1
    for start in range(0, rows.stop - rows.start, size):
        part = slice(rows.start + start, min(rows.start + start + size, rows.stop))
        yield part, [products[start : start + size] for products in chunk]


class Columns:
    """Figures of N tokens, filled in a block of tokens at a time.

    They are written into tensors made once: a small tensor that outlives its block, put between the block's large
    ones, keeps glibc from using their memory again (100 MB a chunk at a vocabulary of 151,936).
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.all: list[Tensor] = []

    def put(self, rows: slice, figures: Sequence[Tensor]) -> None:
        """Keep the figures (n,) of these tokens, one for each column."""
        if not self.all:
            self.all = [figure.new_empty(self.tokens) for figure in figures]
        for column, figure in zip(self.all, figures, strict=True):
            column[rows] = figure


def pick(values: Tensor, ids: Tensor) -> Tensor:
    """values[i, ids[i]] of a (n, V) tensor, as (n,)."""
    return values.gather(-1, ids[:, None]).squeeze(-1)


def entropy_of(p: Tensor, log_p: Tensor) -> Tensor:
    """Entropies (n,) in nats of distributions given by their probabilities and log-probs (n, V)."""
    return -(p * log_p).sum(-1)


def chunk_rows(device: str, vocabulary: int, width: int) -> int:
    """Rows of logits that exist at a time, at least one; 0 where there is no limit.

    Args:
        device: Its type.
        vocabulary: V.
        width: Bytes of a logit.
    """
    if device not in CHUNK_BYTES:
        return 0
    limit = max(CHUNK_BYTES[device], 4 * vocabulary * CHUNK_ROWS.get(device, 0))
    return max(1, limit // (vocabulary * width))
