from itertools import product
from math import comb

import pytest
import torch

from gopd_lightning.metrics import bootstrap_interval, least_share, paired_test, resampled_means, share_interval


def simulated(problems: int, samples: int, right: float, wrong: float, times: int, seed: int) -> torch.Tensor:
    """Shares of right samples of data sets whose problems' difficulty is Beta(right, wrong): [problems, times]."""
    draws = torch.distributions.Beta(right, wrong)
    torch.manual_seed(seed)
    chances = draws.sample((problems, times)).double()
    return torch.distributions.Binomial(samples, chances).sample() / samples


def coverage(values: torch.Tensor, mean: float) -> float:
    low, high = share_interval(values)
    return ((low <= mean + 1e-12) & (mean - 1e-12 <= high)).double().mean().item()


def test_resampled_means_have_the_distribution_of_every_possible_draw():
    values = torch.tensor([0.0, 0.1, 0.7])
    every = torch.tensor([sum(draw) / 3 for draw in product(values.tolist(), repeat=3)], dtype=torch.float64)
    means = resampled_means(values, resamples=200_000)
    for mean in every.unique():
        exact = (every - mean).abs().lt(1e-6).double().mean().item()
        assert (means - mean).abs().lt(1e-6).double().mean().item() == pytest.approx(exact, abs=0.004)


def test_columns_are_drawn_alike():
    values = torch.rand(30, 3, dtype=torch.float64)
    for column, means in zip(values.T, resampled_means(values).T, strict=True):
        torch.testing.assert_close(means, resampled_means(column), rtol=0, atol=1e-12)


def test_draws_are_the_same_however_they_are_chunked(monkeypatch):
    values = torch.rand(50, dtype=torch.float64)
    whole = resampled_means(values, 1_000)
    monkeypatch.setattr("gopd_lightning.metrics.intervals._CHUNK", 333)
    torch.testing.assert_close(resampled_means(values, 1_000), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("right", "wrong"), [(1, 1), (0.5, 2), (6, 1)])
def test_intervals_cover_the_true_mean_as_often_as_they_say(right, wrong):
    values = simulated(problems=100, samples=4, right=right, wrong=wrong, times=1_000, seed=5)
    assert 0.92 <= coverage(values, right / (right + wrong)) <= 0.97


@pytest.mark.parametrize("problems", [10, 30])
def test_intervals_near_all_right_are_never_too_narrow(problems):
    values = simulated(problems=problems, samples=4, right=20, wrong=0.2, times=400, seed=6)
    plain = bootstrap_interval(values)
    covered = (plain[0] <= 20 / 20.2) & (plain[1] >= 20 / 20.2)
    assert covered.double().mean() < 0.8  # what the bootstrap alone would do
    assert coverage(values, 20 / 20.2) > 0.95


@pytest.mark.parametrize("problems", [1, 5, 30, 400])
def test_all_right_has_the_exact_binomial_bound(problems):
    low, high = share_interval(torch.ones(problems))
    assert high == 1
    # By definition: the true share of which n right of n are still as likely as half of 1 - level.
    assert comb(problems, problems) * low.item() ** problems == pytest.approx(0.025, rel=1e-9)
    wrong = share_interval(torch.zeros(problems))
    assert (wrong[0], wrong[1].item()) == (0, pytest.approx(1 - low.item()))


def test_thirty_of_thirty_by_hand():
    assert share_interval(torch.ones(30))[0].item() == pytest.approx(0.8843, abs=1e-4)


def test_one_more_right_problem_never_lowers_an_end():
    columns = torch.tril(torch.ones(31, 30)).T  # column i: i + 1 right of 30
    low, high = share_interval(columns)
    assert bool((low.diff() >= 0).all())
    assert bool((high.diff() >= 0).all())


def test_one_problem_shows_almost_nothing():
    low, high = share_interval(torch.tensor([0.5]))
    assert (low.item(), high.item()) == pytest.approx((0.025, 0.975))


def test_lengths_of_fewer_than_two_problems_have_no_interval():
    assert all(end.isnan() for count in (0, 1) for end in bootstrap_interval(torch.ones(count)))


def test_five_thousand_problems_need_little_memory():
    held = []
    original = torch.randint

    def watched(*args, **kwargs):
        held.append(args[1][0] * args[1][1])
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", watched)
        assert len(resampled_means(torch.rand(5_000), 2_000)) == 2_000
    assert max(held) <= 2**21
    assert sum(held) == 5_000 * 2_000


# Pairs


def test_equal_runs_do_not_differ():
    assert paired_test(torch.zeros(30)) == (0.0, 0.0, 1.0)


def test_columns_are_tested_as_if_alone():
    columns = torch.randint(-1, 2, (50, 3), generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 1, 0])
    together = torch.stack(paired_test(columns))
    alone = torch.stack([torch.stack(paired_test(column)) for column in columns.T], dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_the_direction_turns_the_interval_only():
    differences = torch.tensor([1.0, 0.5, 0, 0, -0.25, 1, 0.75, 0, 0.25, 0.5])
    low, high, p = paired_test(differences)
    back_low, back_high, back_p = paired_test(-differences)
    assert (low.item(), high.item()) == pytest.approx((-back_high.item(), -back_low.item()), abs=0.01)
    assert p.item() == pytest.approx(back_p.item(), rel=0.3)


@pytest.mark.parametrize("differing", [1, 2, 5, 6, 12])
@pytest.mark.parametrize("size", [1.0, 0.25])
def test_few_problems_in_one_direction_prove_no_more_than_their_signs(differing, size):
    values = torch.zeros(100)
    values[:differing] = size
    low, high, p = paired_test(values)
    assert p >= 2 * 0.5**differing
    assert (low > 0) == (p < 0.05) == (differing > 5)
    assert high > size * differing / 100


def test_the_sign_bound_is_that_of_six_equal_signs():
    assert least_share(6) > 0.5 > least_share(5)


def test_null_pairs_rarely_look_different():
    torch.manual_seed(0)
    chances = torch.distributions.Beta(1.0, 1.0).sample((60, 1_000))
    a, b = (torch.distributions.Binomial(4, chances).sample() / 4 for _ in range(2))
    p = paired_test(b - a)[2]
    assert 0.03 <= (p < 0.05).double().mean() <= 0.075
    assert 0.4 <= (p < 0.5).double().mean() <= 0.55  # a resampled difference of exactly 0 counts on both sides


def test_null_pairs_that_hardly_differ_look_different_even_less():
    torch.manual_seed(1)
    a, b = ((torch.rand(200, 1_000) < 0.01).double() for _ in range(2))
    assert (paired_test(b - a)[2] < 0.05).double().mean() <= 0.05


def test_a_pair_is_significant_exactly_when_its_interval_leaves_zero_out():
    for seed in range(60):
        torch.manual_seed(seed)
        low, high, p = paired_test(torch.randint(-1, 2, (40,)) + 0.2 * torch.randint(0, 2, (40,)))
        assert (p < 0.05) == ((low > 0) | (high < 0))
