from itertools import combinations
from math import sqrt

import pytest
import torch

from gopd_lightning.errors import InputError
from gopd_lightning.metrics import AvgAtK, PassAtK, avg_at_k, mean_and_stderr, pass_at_k


def brute_force_pass(correct: int, samples: int, k: int) -> float:
    outcomes = [True] * correct + [False] * (samples - correct)
    draws = list(combinations(outcomes, k))
    return sum(any(draw) for draw in draws) / len(draws)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_equals_counting_every_draw(k):
    cases = [(c, n) for n in range(k, 9) for c in range(n + 1)]
    correct, samples = torch.tensor(cases).unbind(1)
    expected = torch.tensor([brute_force_pass(c, n, k) for c, n in cases], dtype=torch.float64)
    torch.testing.assert_close(pass_at_k(correct, samples, k), expected, rtol=0, atol=1e-12)


def test_pass_at_1_is_avg():
    correct, samples = torch.tensor([0, 3, 8]), torch.tensor([8, 8, 8])
    torch.testing.assert_close(pass_at_k(correct, samples, 1), avg_at_k(correct, samples))


def test_pass_at_k_stays_exact_with_many_samples():
    value = pass_at_k(torch.tensor([1]), torch.tensor([100_000]), 64).item()
    assert value == pytest.approx(64 / 100_000, rel=1e-10)


@pytest.mark.parametrize("k", [0, 5])
def test_too_few_samples_for_k_is_refused(k):
    with pytest.raises(InputError, match=f"pass@{k}"):
        pass_at_k(torch.tensor([1, 1]), torch.tensor([8, 4]), k)


def test_mean_and_stderr_by_hand():
    mean, error = mean_and_stderr(torch.tensor([0.0, 0.5, 1.0, 0.5]))
    assert mean.item() == 0.5
    assert error.item() == pytest.approx(sqrt(0.5 / 3) / sqrt(4))


def test_stderr_of_one_prompt_is_undefined():
    assert mean_and_stderr(torch.tensor([1.0]))[1].isnan()


def test_avg_metric_equals_the_pure_function_over_uneven_updates():
    correct, samples = torch.randint(0, 5, (50,)), torch.full((50,), 4)
    metric = AvgAtK()
    for part in torch.arange(50).split([7, 1, 30, 12]):
        metric.update(correct[part], samples[part])
    mean, error = mean_and_stderr(avg_at_k(correct, samples))
    torch.testing.assert_close(metric.compute(), mean)
    torch.testing.assert_close(metric.stderr(), error)


def test_avg_counts_prompts_not_samples():
    metric = AvgAtK()
    metric.update(torch.tensor([1, 0]), torch.tensor([1, 9]))
    assert metric.compute().item() == 0.5


def test_stderr_of_equal_prompts_is_zero():
    metric = AvgAtK()
    metric.update(torch.tensor([1, 1, 1]), torch.tensor([3, 3, 3]))
    assert metric.stderr().item() == pytest.approx(0, abs=1e-8)


def test_an_update_without_prompts_changes_nothing():
    metric = PassAtK(2)
    metric.update(torch.tensor([1]), torch.tensor([2]))
    metric.update(torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long))
    assert metric.compute().item() == 1.0
