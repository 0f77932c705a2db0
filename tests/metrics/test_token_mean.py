import math

import pytest
import torch
from torch import nn

from gopd_lightning.metrics import TokenMean


def test_mean_is_over_tokens_not_micro_batches():
    metric = TokenMean()
    metric.update(torch.tensor([1.0, 1.0, 1.0]))
    metric.update(torch.tensor([5.0]))
    assert metric.compute().item() == 2.0


def test_masked_tokens_do_not_count_even_when_nan():
    metric = TokenMean()
    metric.update(torch.tensor([[1.0, math.nan], [3.0, math.inf]]), torch.tensor([[True, False], [True, False]]))
    assert metric.compute().item() == 2.0


def test_a_nan_that_counts_shows():
    metric = TokenMean()
    metric.update(torch.tensor([1.0, math.nan]), torch.tensor([1, 1]))
    assert metric.compute().isnan()


def test_row_means_weighted_by_lengths_equal_the_tokens():
    rows = [torch.rand(n) for n in (3, 17, 1)]
    by_token, by_row = TokenMean(), TokenMean()
    by_token.update(torch.cat(rows))
    by_row.update(torch.stack([r.mean() for r in rows]), torch.tensor([3, 17, 1]))
    assert by_row.compute().item() == pytest.approx(by_token.compute().item(), rel=1e-6)


def test_small_values_are_not_lost_in_a_large_sum():
    metric = TokenMean()
    metric.update(torch.tensor([1e8]))
    for _ in range(100):
        metric.update(torch.full((100,), 1e-2))
    assert metric.compute().item() == pytest.approx((1e8 + 100) / 10_001, rel=1e-12)


def test_no_graph_is_kept():
    metric = TokenMean()
    metric.update(torch.ones(2, requires_grad=True) * 3)
    assert not metric.total.requires_grad


def test_casting_the_module_leaves_sums_in_float64():
    holder = nn.ModuleDict({"metric": TokenMean()}).to(torch.bfloat16)
    assert holder["metric"].total.dtype == torch.float64
    holder["metric"].reset()
    assert holder["metric"].total.dtype == torch.float64


def test_reset_starts_anew():
    metric = TokenMean()
    metric.update(torch.tensor([4.0]))
    metric.reset()
    metric.update(torch.tensor([1.0]))
    assert metric.compute().item() == 1.0
