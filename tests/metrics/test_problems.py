import math

import pytest
import torch
from torch import nn

from gopd_lightning.metrics import (
    AvgAtK,
    CrashedShare,
    Figure,
    PassAtK,
    ResponseLength,
    TruncationRate,
    bootstrap_interval,
    mean_and_stderr,
    share_interval,
)

TOTALS, COUNTS = torch.tensor([3.0, 0.0, 1.0, 4.0, 2.0]), torch.full((5,), 4)


@pytest.mark.parametrize("metric", [AvgAtK(), TruncationRate(), CrashedShare()])
def test_shares_have_mean_error_and_interval_of_their_problems(metric):
    metric.update(TOTALS, COUNTS)
    shares = (TOTALS / COUNTS).double()
    mean, error = mean_and_stderr(shares)
    low, high = share_interval(shares)
    assert metric.figure() == Figure(mean=mean.item(), low=low.item(), high=high.item(), stderr=error.item())
    assert (metric.compute(), metric.stderr(), metric.interval()) == (mean, error, (low, high))


def test_lengths_are_means_over_problems_without_bounds():
    metric = ResponseLength()
    metric.update(torch.tensor([100, 900, 30]), torch.tensor([1, 9, 1]))
    assert metric.compute().item() == pytest.approx((100 + 100 + 30) / 3)
    assert metric.interval() == bootstrap_interval(torch.tensor([100.0, 100.0, 30.0])) == (30, 100)


def test_the_order_of_problems_changes_nothing():
    values = torch.rand(40, generator=torch.Generator().manual_seed(3))
    one, other = AvgAtK(), AvgAtK()
    one.update(values, torch.ones(40))
    for i in torch.randperm(40, generator=torch.Generator().manual_seed(4)):
        other.update(values[i].view(1), torch.ones(1))
    assert one.figure() == other.figure()


def test_another_level_gives_another_interval():
    metric = AvgAtK()
    metric.update(TOTALS, COUNTS)
    wide, narrow = metric.interval(0.99), metric.interval(0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_interval_and_error_leave_the_metric_open_for_more():
    metric = AvgAtK()
    metric.update(TOTALS, COUNTS)
    metric.figure()
    metric.update(torch.tensor([4.0]), torch.tensor([4]))
    assert metric.compute().item() == pytest.approx((10 / 4 + 1) / 6)


def test_without_problems_every_figure_is_nan_and_nobody_is_warned(recwarn):
    metric = AvgAtK()
    assert metric.compute().isnan()
    assert all(math.isnan(value) for value in (*metric.interval(), metric.stderr()))
    assert metric.figure().as_dict() == {"mean": None, "low": None, "high": None, "stderr": None}
    assert not recwarn.list


def test_figures_are_numbers_for_json():
    figure = Figure(mean=0.5, low=0.25, high=0.75, stderr=math.nan)
    assert figure.as_dict() == {"mean": 0.5, "low": 0.25, "high": 0.75, "stderr": None}


def test_reset_forgets():
    metric = AvgAtK()
    metric.update(TOTALS, COUNTS)
    metric.reset()
    metric.update(torch.tensor([1.0]), torch.tensor([1]))
    assert metric.compute().item() == 1.0


def test_casting_the_module_leaves_values_in_float64():
    metric = PassAtK(1)
    holder = nn.ModuleDict({"metric": metric}).to(torch.bfloat16)
    metric.update(torch.tensor([1]), torch.tensor([3]))
    holder.to(torch.bfloat16)
    metric.update(torch.tensor([1]), torch.tensor([3]))
    torch.testing.assert_close(metric.per_problem(), torch.full((2,), 1 / 3, dtype=torch.float64), rtol=0, atol=1e-15)
