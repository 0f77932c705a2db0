"""Losses with their gradient made in the forward pass, against autograd on whole logits."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tiny_states import N, V, chunks_of, ids, states
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gopd_lightning.logprobs import Head, States, token_logprobs
from gopd_lightning.losses import divergence_loss, logprob_loss

WEIGHTS = torch.linspace(-1, 1, N)


def likelihood(s: States, weights: Tensor = WEIGHTS) -> Tensor:
    return logprob_loss(s, ids(), weights, lambda logprobs, rows: -logprobs).total


def plain_logprobs(s: States) -> Tensor:
    return s.head.logits(s.hidden).log_softmax(-1).gather(1, ids()[:, None]).squeeze(1)


def plain_kl(student: States, teacher: States, reference: States, scale: float) -> Tensor:
    log_s, log_t, log_r = (F.linear(s.hidden, s.head.weight).log_softmax(-1) for s in (student, teacher, reference))
    log_q = (scale * log_t + (1 - scale) * log_r).log_softmax(-1)
    return (log_s.exp() * (log_s - log_q)).sum(-1)


def double(s: States, grad: bool = False) -> States:
    hidden, weight = (x.detach().double().requires_grad_(grad) for x in (s.hidden, s.head.weight))
    return States(hidden, Head(weight))


def gradients(total: Tensor, s: States) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, (s.hidden, s.head.weight))


@pytest.mark.parametrize("rows", [10**6, 5, 1])
@pytest.mark.parametrize("block", [10**6, 2])
def test_gradient_of_any_rule_on_logprobs_is_that_of_autograd(monkeypatch, rows, block):
    chunks_of(monkeypatch, rows, block)
    s, scale = states(16, 0, grad=True), torch.linspace(0.5, 2, N)
    out = logprob_loss(s, ids(), WEIGHTS, lambda logprobs, part: scale[part] * (0.3 * logprobs).exp())
    plain = scale * (0.3 * plain_logprobs(s)).exp()
    torch.testing.assert_close(out.total, (plain * WEIGHTS).sum())
    torch.testing.assert_close(out.losses, plain.detach())
    torch.testing.assert_close(out.logprobs, plain_logprobs(s).detach())
    for a, b in zip(gradients(out.total, s), gradients((plain * WEIGHTS).sum(), s), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.25, 2.0])
@pytest.mark.parametrize("rows", [10**6, 4])
def test_divergence_equals_three_logits_with_three_hidden_sizes(monkeypatch, scale, rows):
    chunks_of(monkeypatch, rows, 2)
    s, t, r = states(16, 0, grad=True), states(24, 1), states(8, 2)
    exact = double(s, grad=True)
    out = divergence_loss(s, t, r, scale, ids(), torch.ones(N))
    plain = plain_kl(exact, double(t), double(r), scale)
    expected = gradients(plain.sum(), exact)
    plain = plain.detach()
    torch.testing.assert_close(out.kl.double(), plain, rtol=1e-6, atol=1e-6 * float(plain.max()))
    for a, b in zip(gradients(out.total, s), expected, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 1e-6


def test_weights_of_tokens_reach_the_divergences_gradient():
    s, t, r = states(16, 0, grad=True), states(24, 1), states(8, 2)
    expected = gradients((plain_kl(s, t, r, 1.25) * WEIGHTS).sum(), s)
    for a, b in zip(gradients(divergence_loss(s, t, r, 1.25, ids(), WEIGHTS).total, s), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_divergence_reports_the_sampled_tokens_logprobs():
    s, t, r = states(16, 0), states(24, 1), states(8, 2)
    out = divergence_loss(s, t, r, 1.5, ids(), WEIGHTS)
    for got, model in ((out.student, s), (out.teacher, t), (out.reference, r)):
        torch.testing.assert_close(got, token_logprobs(model, ids()).logprobs)
    torch.testing.assert_close(out.entropy, token_logprobs(s, ids()).entropy)
    assert divergence_loss(s, t, r, 1.0, ids(), WEIGHTS).reference is None


def test_equal_teacher_and_student_have_no_divergence_and_no_gradient():
    s = states(16, 0, grad=True)
    out = divergence_loss(s, States(s.hidden.detach(), Head(s.head.weight.detach())), None, 1.0, ids(), WEIGHTS)
    assert float(out.kl.abs().max()) < 1e-6
    assert float(gradients(out.total, s)[0].abs().max()) < 1e-6


def test_bias_softcap_and_temperature_are_differentiated():
    s, bias = states(16, 0, grad=True), torch.randn(V, requires_grad=True)
    shaped = States(s.hidden, Head(s.head.weight, bias, softcap=5.0, temperature=0.7))
    wanted = (s.hidden, s.head.weight, bias)
    expected = torch.autograd.grad((-plain_logprobs(shaped) * WEIGHTS).sum(), wanted)
    for a, b in zip(torch.autograd.grad(likelihood(shaped), wanted), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_factor_on_the_loss_reaches_the_gradient(factor):
    s = states(8, 0, grad=True)
    got, plain = gradients(likelihood(s) * factor, s), gradients(-(plain_logprobs(s) * WEIGHTS).sum() * factor, s)
    for a, b in zip(got, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_the_same_one():
    s = states(8, 0, grad=True)
    bare = States(s.hidden, Head(s.head.weight.detach()))
    got = torch.autograd.grad(likelihood(bare), s.hidden)[0]
    assert torch.equal(got, torch.autograd.grad(likelihood(s), s.hidden)[0])


def test_a_second_backward_pass_is_an_error_and_not_a_wrong_gradient():
    total = likelihood(states(8, 0, grad=True))
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        total.backward()


@pytest.mark.parametrize("rows", [10**6, 5])
def test_autocast_computes_in_bfloat16_and_gives_gradients_in_float32(monkeypatch, rows):
    chunks_of(monkeypatch, rows)
    s = states(16, 0, grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = likelihood(s)
    for a, b in zip(gradients(total, s), gradients(likelihood(s), s), strict=True):
        assert a.dtype == torch.float32
        assert 1e-5 < float((a - b).norm() / b.norm()) < 2e-2


class _Largest(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize(
    "loss",
    [likelihood, lambda s: divergence_loss(s, states(4, 1), states(4, 2), 1.5, ids(), WEIGHTS).total],
    ids=["logprobs", "divergence"],
)
def test_no_tensor_of_all_tokens_times_vocabulary_is_ever_held(monkeypatch, loss: Callable[[States], Tensor]):
    chunks_of(monkeypatch, 6, 2)
    s = states(4, 0, grad=True)
    with _Largest() as seen:
        loss(s).backward()
    assert seen.elements <= 6 * V < N * V
