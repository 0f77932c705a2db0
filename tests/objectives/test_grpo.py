"""GRPO's advantages and its gradient."""

import pytest
import torch

from gopd_lightning.errors import InputError
from gopd_lightning.logprobs import Head, States
from gopd_lightning.objectives import GRPOObjective, Tokens, grpo_advantages
from gopd_lightning.records import Completion, Prompt, Row, Verdict


def test_advantages_are_normalised_within_each_group():
    a = grpo_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]]))
    torch.testing.assert_close(a.mean(1), torch.zeros(2), atol=1e-6, rtol=0)
    assert float(a[0].std()) == pytest.approx(1.0, abs=1e-4)
    assert torch.equal(a[1], torch.zeros(4))


def test_without_std_only_the_mean_is_taken_off():
    torch.testing.assert_close(
        grpo_advantages(torch.tensor([[1.0, 0.0]]), normalise_std=False), torch.tensor([[0.5, -0.5]])
    )


def rows(*groups: list[float]) -> list[Row]:
    return [
        Row(
            prompt=Prompt(uid=uid, domain="d", dataset="d", text="", ids=[1]),
            completion=Completion(ids=[2], finished=True),
            sample=k,
            verdict=None if reward is None else Verdict(reward=reward),
        )
        for uid, rewards in enumerate(groups)
        for k, reward in enumerate(rewards)
    ]


def test_prepare_gives_every_row_the_advantage_of_its_group():
    found = rows([1.0, 0.0], [0.0, 0.0])
    GRPOObjective().prepare(found)
    assert found[0].advantage > 0 > found[1].advantage
    assert found[2].advantage == found[3].advantage == 0


def test_one_sample_a_prompt_is_an_error_that_names_the_setting():
    with pytest.raises(InputError, match="sampling.n"):
        GRPOObjective().prepare(rows([1.0]))


def test_gradient_is_advantage_times_score():
    hidden = torch.randn(3, 4, requires_grad=True)
    head = Head(torch.randn(7, 4))
    data = Tokens(
        ids=torch.arange(3), weights=torch.ones(3), engine_logprobs=None, advantages=torch.tensor([1.0, -2.0, 0.0])
    )
    out = GRPOObjective()(States(hidden, head), None, data)
    got = torch.autograd.grad(out.total, hidden)[0]
    log_s = head.logits(hidden).log_softmax(-1).diagonal()
    expected = torch.autograd.grad(-(data.advantages * log_s).sum(), hidden)[0]
    torch.testing.assert_close(got, expected)
