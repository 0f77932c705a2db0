"""Log-probs, entropies and divergences of tokens from hidden states, chunked over tokens.

The one path from hidden states to per-token figures: student, teachers, reference, training and evaluation all
come through here. No `[tokens, vocabulary]` tensor of a whole batch ever exists: a chunk of rows goes through the
head, is reduced to a few floats a token, and is computed again in the backward pass.
Everything returned is float32, natural log, one entry a response token, flat over the batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_ELEMENTS = 2**23  # logits (tokens x vocabulary) that may exist at a time: 32 MiB in float32


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
        """Float32 logits (n, V) of hidden states (n, H)."""
        logits = F.linear(hidden, self.weight, self.bias).float()
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits if self.temperature == 1.0 else logits / self.temperature


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
    """

    states: States | None = None
    logprobs: Tensor | None = None

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
    """Log-prob (N,) of each sampled token (with gradient) and entropy (N,) of its distribution (without)."""

    logprobs: Tensor
    entropy: Tensor


class TargetDivergence(NamedTuple):
    """Per token (N,): KL(S || Q) with gradient; log-probs of the sampled token and entropy of S without.

    `reference` is None when reward_scale is 1.
    """

    kl: Tensor
    student: Tensor
    entropy: Tensor
    teacher: Tensor
    reference: Tensor | None


def token_logprobs(states: States, ids: Tensor) -> TokenLogprobs:
    """Log-probs of given tokens and the entropy of the distributions they came from.

    Args:
        states: Hidden states (N, H) that predict the tokens, and the head.
        ids: (N,) token ids, below the head's size.

    Returns:
        Log-probs (N,), differentiable in hidden states and head, and entropies (N,) in nats.
    """

    def chunk(rows: slice) -> tuple[Tensor, ...]:
        return _logprobs_and_entropy(states.head.logits(states.hidden[rows]), ids[rows])

    logprobs, entropy = _over_chunks(chunk, ids.numel(), states.head.size)
    return TokenLogprobs(logprobs, entropy.detach())


def target_divergence(
    student: States, teacher: States, reference: States | None, reward_scale: float, ids: Tensor
) -> TargetDivergence:
    """KL(S || Q) over the whole vocabulary, Q = softmax(lambda * log T + (1 - lambda) * log R).

    Its gradient is the expectation of the sampled estimator's (paper 2602.12125, Eq. 14; the normalisers of T
    and R cancel in the softmax, so their logits serve as log-probs). The three models may differ in hidden size.

    Args:
        student: Hidden states (N, H_s), with gradient, and head.
        teacher: Hidden states (N, H_t) and head over the same real vocabulary.
        reference: Hidden states (N, H_r) and head; not read, and may be None, when reward_scale is 1.
        reward_scale: lambda.
        ids: (N,) sampled token ids, for the log-probs that are reported beside the divergence.

    Returns:
        The divergence, differentiable in the student only, and the sampled tokens' log-probs.
    """
    extrapolate = reference is not None and reward_scale != 1.0

    def chunk(rows: slice) -> tuple[Tensor, ...]:
        log_s = student.head.logits(student.hidden[rows]).log_softmax(-1)
        with torch.no_grad():
            target = teacher.head.logits(teacher.hidden[rows])
            picked = [_logprobs_and_entropy(target, ids[rows])[0]]
            if extrapolate:
                assert reference is not None
                other = reference.head.logits(reference.hidden[rows])
                picked.append(_logprobs_and_entropy(other, ids[rows])[0])
                target = reward_scale * target + (1.0 - reward_scale) * other
            log_q = target.log_softmax(-1)
        p = log_s.exp()
        kl = (p * (log_s - log_q)).sum(-1)
        entropy = -(p.detach() * log_s.detach()).sum(-1)
        sampled = log_s.detach().gather(-1, ids[rows, None]).squeeze(-1)
        return kl, sampled, entropy, *picked

    kl, sampled, entropy, *frozen = _over_chunks(chunk, ids.numel(), student.head.size)
    return TargetDivergence(kl, sampled, entropy, frozen[0], frozen[1] if extrapolate else None)


def _logprobs_and_entropy(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs (n,) of `ids` with gradient and entropies (n,) without, from logits (n, V)."""
    normaliser = logits.logsumexp(-1)
    logprobs = logits.gather(-1, ids[:, None]).squeeze(-1) - normaliser
    with torch.no_grad():
        log_p = logits - normaliser[:, None]
        entropy = -(log_p.exp() * log_p).sum(-1)
    return logprobs, entropy


def _over_chunks(chunk: Callable[[slice], tuple[Tensor, ...]], tokens: int, vocabulary: int) -> list[Tensor]:
    """Apply `chunk` to slices of the tokens and concatenate; recompute in backward when there are several.

    A single chunk is within the bound by itself, so it keeps its activations and is not computed twice.
    """
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    if tokens <= size:
        return list(chunk(slice(0, tokens)))
    parts = []
    for start in range(0, tokens, size):
        rows = slice(start, min(start + size, tokens))
        if torch.is_grad_enabled():
            parts.append(checkpoint(chunk, rows, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(chunk(rows))
    return [torch.cat(columns) for columns in zip(*parts, strict=True)]
