"""Oracles of the objective: the paper's formula, its regimes, and the identity behind its two estimators."""

import pytest
import torch

from gopd_lightning.logprobs import Head, States, TokenScores
from gopd_lightning.objectives import (
    FrozenScores,
    FullGOPD,
    SampledGOPD,
    Tokens,
    gopd_advantage,
    token_weights,
    truncated_importance_weights,
)


def lp(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_worked_example_of_the_paper():
    a = gopd_advantage(lp(-1.0), lp(-0.5), lp(-2.0), 1.25)
    assert a.item() == pytest.approx(0.875, abs=1e-7)


def test_lambda_one_does_not_depend_on_the_reference():
    s, t = lp(-1.0, -2.0), lp(-0.5, -3.0)
    plain = gopd_advantage(s, t, None, 1.0)
    assert torch.equal(plain, gopd_advantage(s, t, lp(-9.0, -0.1), 1.0))
    torch.testing.assert_close(plain, t - s)


def test_lambda_zero_pulls_to_the_reference():
    torch.testing.assert_close(gopd_advantage(lp(-1.0), lp(-7.0), lp(-2.0), 0.0), lp(-1.0))


def test_reference_equal_to_teacher_makes_lambda_irrelevant():
    s, t = lp(-1.0, -0.3), lp(-0.5, -2.0)
    torch.testing.assert_close(gopd_advantage(s, t, t, 1.7), gopd_advantage(s, t, None, 1.0))


def test_first_step_from_the_reference_gives_lambda_times_the_log_ratio():
    s, t = lp(-1.0, -0.3), lp(-0.5, -2.0)
    torch.testing.assert_close(gopd_advantage(s, t, s, 1.25), 1.25 * (t - s))


def test_advantage_carries_no_gradient():
    s = lp(-1.0).requires_grad_()
    assert not gopd_advantage(s, lp(-0.5), lp(-2.0), 1.25).requires_grad


def test_lambda_other_than_one_without_reference_is_an_error():
    with pytest.raises(ValueError, match="needs the reference"):
        gopd_advantage(lp(-1.0), lp(-0.5), None, 1.25)


def test_mixed_batch_is_the_concatenation_of_the_domains_bit_for_bit():
    g = torch.Generator().manual_seed(0)
    s, t, r = (-torch.rand(20, generator=g) for _ in range(3))
    mixed = gopd_advantage(s, t, r, 1.25)
    parts = [gopd_advantage(s[i], t[i], r[i], 1.25) for i in (slice(0, 8), slice(8, 20))]
    assert torch.equal(mixed, torch.cat(parts))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.25, 2.0])
def test_expected_sampled_gradient_is_that_of_the_full_divergence(scale):
    """Sum over the vocabulary of S(y) * grad(-A(y) log S(y)) equals grad KL(S || Q), in float64."""
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(11, generator=g, dtype=torch.float64, requires_grad=True)
    log_t, log_r = (torch.randn(11, generator=g, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    log_s = logits.log_softmax(-1)
    advantage = gopd_advantage(log_s, log_t, log_r, scale)
    sampled = torch.autograd.grad((log_s.exp().detach() * -advantage * log_s).sum(), logits, retain_graph=True)[0]
    log_q = (scale * log_t + (1 - scale) * log_r).log_softmax(-1)
    full = torch.autograd.grad((log_s.exp() * (log_s - log_q)).sum(), logits)[0]
    assert float((sampled - full).abs().max()) < 1e-8


def scores(seed: int, width: int, n: int = 9, vocabulary: int = 13, grad: bool = False) -> States:
    g = torch.Generator().manual_seed(seed)
    return States(
        torch.randn(n, width, generator=g).requires_grad_(grad),
        Head(torch.randn(vocabulary, width, generator=g)),
    )


def frozen(scale: float = 1.25) -> FrozenScores:
    return FrozenScores(
        teacher=TokenScores(scores(1, 6)),
        reference=None if scale == 1.0 else TokenScores(scores(2, 5)),
        reward_scale=scale,
    )


def tokens(engine: torch.Tensor | None = None) -> Tokens:
    return Tokens(ids=torch.arange(9), weights=torch.ones(9), engine_logprobs=engine, advantages=torch.zeros(9))


@pytest.mark.parametrize("objective", [SampledGOPD(), FullGOPD()])
def test_both_estimators_report_the_same_figures_of_the_sampled_tokens(objective):
    out = objective(scores(0, 4), frozen(), tokens())
    stats = out.statistics
    expected = gopd_advantage(stats["student"], stats["teacher"], stats["reference"], 1.25)
    assert torch.equal(stats["advantage"], expected)
    other = SampledGOPD()(scores(0, 4), frozen(), tokens()).statistics
    torch.testing.assert_close(stats["student"], other["student"])
    torch.testing.assert_close(stats["entropy"], other["entropy"])


@pytest.mark.parametrize("objective", [SampledGOPD(), FullGOPD()])
def test_teacher_equal_to_student_gives_zero_loss_and_gradient(objective):
    student = scores(0, 4, grad=True)
    same = FrozenScores(teacher=TokenScores(scores(0, 4)), reference=None, reward_scale=1.0)
    out = objective(student, same, tokens())
    assert float(out.losses.abs().max()) < 1e-6
    assert float(torch.autograd.grad(out.total, student.hidden)[0].abs().max()) < 1e-6


def test_full_estimator_refuses_a_teacher_that_gives_logprobs_only():
    served = FrozenScores(teacher=TokenScores(logprobs=-torch.ones(9)), reference=None, reward_scale=1.0)
    with pytest.raises(ValueError, match="estimator: sampled"):
        FullGOPD()(scores(0, 4), served, tokens())
    assert SampledGOPD()(scores(0, 4, grad=True), served, tokens()).total.requires_grad


def test_loss_backpropagates_through_the_student_only_once():
    student = scores(0, 4, grad=True)
    out = SampledGOPD()(student, frozen(), tokens())
    got = torch.autograd.grad(out.total, student.hidden)[0]
    log_s = student.head.logits(student.hidden).log_softmax(-1).gather(1, torch.arange(9)[:, None]).squeeze(1)
    expected = torch.autograd.grad((-out.statistics["advantage"] * log_s).sum(), student.hidden)[0]
    torch.testing.assert_close(got, expected)


def test_importance_weights_are_capped_above_only():
    w = truncated_importance_weights(lp(0.0, -5.0, -1.0), lp(-5.0, 0.0, -1.0), 5.0)
    torch.testing.assert_close(w, torch.tensor([5.0, torch.exp(torch.tensor(-5.0)), 1.0]))


def test_importance_weights_are_one_without_a_cap_or_without_a_gap():
    assert torch.equal(truncated_importance_weights(lp(-1.0), None, None), torch.ones(1))
    assert torch.equal(truncated_importance_weights(lp(-1.0), lp(-1.0), 5.0), torch.ones(1))


def test_a_cap_without_engine_logprobs_is_an_error():
    with pytest.raises(ValueError, match="no log-probs"):
        SampledGOPD(importance_weight_cap=5.0)(scores(0, 4), frozen(), tokens())


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_weights_of_the_whole_step_add_up_to_one_however_it_is_cut(aggregation):
    lengths = [3, 1, 7, 2]
    whole = token_weights(lengths, aggregation, tokens=13, sequences=4)
    parts = [token_weights(part, aggregation, tokens=13, sequences=4) for part in ([3, 1], [7], [2])]
    assert torch.equal(whole, torch.cat(parts))
    assert float(whole.sum()) == pytest.approx(1.0)


def test_sequence_mean_weighs_sequences_alike_and_token_mean_tokens():
    by_sequence = token_weights([1, 4], "sequence_mean", tokens=5, sequences=2)
    torch.testing.assert_close(by_sequence, torch.tensor([0.5, 0.125, 0.125, 0.125, 0.125]))
    torch.testing.assert_close(token_weights([1, 4], "token_mean", 5, 2), torch.full((5,), 0.2))
    with pytest.raises(ValueError, match="token_mean, sequence_mean"):
        token_weights([1], "mean", 1, 1)
