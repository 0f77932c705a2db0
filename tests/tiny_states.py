"""Random hidden states and heads for the tests of log-probs and losses."""

import pytest
import torch

from gopd_lightning import logprobs
from gopd_lightning.logprobs import Head, States

N, V = 37, 53


def states(width: int, seed: int, vocabulary: int = V, grad: bool = False) -> States:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, width, generator=g).requires_grad_(grad)
    weight = torch.randn(vocabulary, width, generator=g).requires_grad_(grad)
    return States(hidden, Head(weight))


def ids() -> torch.Tensor:
    return torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(9))


def chunks_of(monkeypatch: pytest.MonkeyPatch, rows: int, block: int = 10**6) -> None:
    """Let chunks and blocks hold so many rows of logits over V ids."""
    monkeypatch.setattr(logprobs, "CHUNK_BYTES", {"cpu": 4 * rows * V})
    monkeypatch.setattr(logprobs, "CHUNK_ROWS", {})
    monkeypatch.setattr(logprobs, "BLOCK_ELEMENTS", {"cpu": block * V})
