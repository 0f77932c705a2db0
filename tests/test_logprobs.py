"""Chunked log-probs and divergences against the plain computation on whole logits."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gopd_lightning import logprobs
from gopd_lightning.logprobs import Head, States, target_divergence, token_logprobs

N, V = 37, 53


def states(width: int, seed: int, vocabulary: int = V, grad: bool = False) -> States:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, width, generator=g).requires_grad_(grad)
    weight = torch.randn(vocabulary, width, generator=g).requires_grad_(grad)
    return States(hidden, Head(weight))


def ids() -> torch.Tensor:
    return torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(9))


def direct_kl(student: States, teacher: States, reference: States, scale: float) -> torch.Tensor:
    log_s, log_t, log_r = (F.linear(s.hidden, s.head.weight).log_softmax(-1) for s in (student, teacher, reference))
    log_q = (scale * log_t + (1 - scale) * log_r).log_softmax(-1)
    return (log_s.exp() * (log_s - log_q)).sum(-1)


@pytest.mark.parametrize("chunk", [10**9, 5 * V, V])
def test_logprobs_and_gradients_equal_log_softmax_of_whole_logits(monkeypatch, chunk):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
    s = states(16, 0, grad=True)
    out = token_logprobs(s, ids())
    weights = torch.linspace(-1, 1, N)
    grads = torch.autograd.grad((out.logprobs * weights).sum(), (s.hidden, s.head.weight))
    log_p = F.linear(s.hidden, s.head.weight).log_softmax(-1)
    plain = log_p.gather(1, ids()[:, None]).squeeze(1)
    expected = torch.autograd.grad((plain * weights).sum(), (s.hidden, s.head.weight))
    torch.testing.assert_close(out.logprobs, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out.entropy, -(log_p.exp() * log_p).sum(-1), rtol=1e-5, atol=1e-5)
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.25, 2.0])
@pytest.mark.parametrize("chunk", [10**9, 4 * V])
def test_divergence_equals_three_logits_with_three_hidden_sizes(monkeypatch, scale, chunk):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
    s, t, r = states(16, 0, grad=True), states(24, 1), states(8, 2)
    s64, t64, r64 = (States(x.hidden.detach().double(), Head(x.head.weight.detach().double())) for x in (s, t, r))
    s64.hidden.requires_grad_(), s64.head.weight.requires_grad_()
    out = target_divergence(s, t, r, scale, ids())
    plain = direct_kl(s64, t64, r64, scale)
    torch.testing.assert_close(out.kl.double(), plain, rtol=1e-6, atol=1e-6 * float(plain.abs().max()))
    got = torch.autograd.grad(out.kl.sum(), (s.hidden, s.head.weight))
    expected = torch.autograd.grad(plain.sum(), (s64.hidden, s64.head.weight))
    for a, b in zip(got, expected, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 1e-6


def test_divergence_reports_the_sampled_tokens_logprobs():
    s, t, r = states(16, 0), states(24, 1), states(8, 2)
    out = target_divergence(s, t, r, 1.5, ids())
    torch.testing.assert_close(out.student, token_logprobs(s, ids()).logprobs)
    torch.testing.assert_close(out.teacher, token_logprobs(t, ids()).logprobs)
    assert out.reference is not None
    torch.testing.assert_close(out.reference, token_logprobs(r, ids()).logprobs)


def test_equal_teacher_and_student_have_no_divergence_and_no_gradient():
    s = states(16, 0, grad=True)
    out = target_divergence(s, States(s.hidden.detach(), Head(s.head.weight.detach())), None, 1.0, ids())
    assert float(out.kl.abs().max()) < 1e-6
    assert float(torch.autograd.grad(out.kl.sum(), s.hidden)[0].abs().max()) < 1e-6


class _Largest(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("kind", ["logprobs", "divergence"])
def test_no_tensor_of_all_tokens_times_vocabulary_is_ever_held(monkeypatch, kind):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 6 * V)
    s, t = states(4, 0, grad=True), states(4, 1)
    with _Largest() as seen:
        if kind == "logprobs":
            token_logprobs(s, ids()).logprobs.sum().backward()
        else:
            target_divergence(s, t, t, 1.5, ids()).kl.sum().backward()
    assert seen.elements <= 6 * V < N * V


def test_temperature_and_softcap_shape_the_logits():
    hidden, weight = torch.randn(3, 4), torch.randn(5, 4)
    plain = hidden @ weight.T
    torch.testing.assert_close(Head(weight, temperature=0.5).logits(hidden), plain / 0.5)
    torch.testing.assert_close(Head(weight, softcap=2.0).logits(hidden), 2 * torch.tanh(plain / 2))
