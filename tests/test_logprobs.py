"""Chunked log-probs and entropies against the plain computation on whole logits."""

import pytest
import torch
import torch.nn.functional as F
from tiny_states import N, V, chunks_of, ids, states

from gopd_lightning import logprobs
from gopd_lightning.logprobs import Head, States, token_logprobs


@pytest.mark.parametrize("rows", [10**6, 5, 1])
@pytest.mark.parametrize("block", [10**6, 2])
def test_logprobs_and_entropies_equal_log_softmax_of_whole_logits(monkeypatch, rows, block):
    chunks_of(monkeypatch, rows, block)
    s = states(16, 0)
    out = token_logprobs(s, ids())
    log_p = F.linear(s.hidden, s.head.weight).log_softmax(-1)
    torch.testing.assert_close(out.logprobs, log_p.gather(1, ids()[:, None]).squeeze(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.entropy, -(log_p.exp() * log_p).sum(-1), rtol=1e-5, atol=1e-5)


def test_logprobs_carry_no_gradient():
    assert not token_logprobs(states(4, 0, grad=True), ids()).logprobs.requires_grad


def test_bias_temperature_and_softcap_reach_the_logprobs():
    hidden = torch.randn(N, 4)
    head = Head(torch.randn(V, 4), torch.randn(V), softcap=3.0, temperature=0.7)
    plain = 3 * torch.tanh((hidden @ head.weight.T + head.bias) / 3) / 0.7
    expected = plain.log_softmax(-1).gather(1, ids()[:, None]).squeeze(1)
    torch.testing.assert_close(token_logprobs(States(hidden, head), ids()).logprobs, expected)


def test_temperature_and_softcap_shape_the_logits():
    hidden, weight = torch.randn(3, 4), torch.randn(5, 4)
    plain = hidden @ weight.T
    torch.testing.assert_close(Head(weight, temperature=0.5).logits(hidden), plain / 0.5)
    torch.testing.assert_close(Head(weight, softcap=2.0).logits(hidden), 2 * torch.tanh(plain / 2))


def test_a_chunk_has_96_mib_and_at_least_the_bytes_of_512_float32_rows():
    assert logprobs.chunk_rows("cpu", 49152, 4) == 512
    assert logprobs.chunk_rows("cpu", 151936, 4) == 512
    assert logprobs.chunk_rows("cpu", 151936, 2) == 1024
    assert logprobs.chunk_rows("cpu", 320, 4) == 96 * 2**20 // 1280
    assert logprobs.chunk_rows("cuda", 151936, 4) == 2**30 // 607744
    assert logprobs.chunk_rows("mps", 320, 4) == 0
