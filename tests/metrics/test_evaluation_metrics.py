"""`gopd_lightning.modules.evaluation`: from graded rows to the figures of each data set."""

import pytest
import torch
from graded import prompt, rows

from gopd_lightning.metrics import share_interval
from gopd_lightning.modules.evaluation import EvaluationMetrics


@pytest.fixture
def metrics() -> EvaluationMetrics:
    found = EvaluationMetrics([prompt(0, "math"), prompt(1, "math"), prompt(2, "code"), prompt(3, "plain")])
    found.update(rows(0, [1, 0, 1, 1, 0], ["7", "8", "7", "7", None]))
    found.update(
        rows(1, [0, 0, 0, 0, 1], ["1", "1", "crashed", "3", "4"])
        + rows(2, [1, 0.5, 0, 0, 0], dataset="code")
        + rows(3, [None, None], dataset="plain")
    )
    return found


def test_logged_figures_are_means_over_problems(metrics):
    assert metrics.compute("val") == pytest.approx(
        {
            "val/code/avg@5": 0.3,
            "val/code/pass@5": 1.0,
            "val/code/length": 3.0,
            "val/code/truncated": 0.2,
            "val/math/avg@5": 0.4,
            "val/math/pass@5": 1.0,
            "val/math/maj@5": 0.5,
            "val/math/length": 3.0,
            "val/math/truncated": 0.2,
            "val/plain/length": 1.5,
            "val/plain/truncated": 0.5,
        }
    )


def test_figures_hold_every_power_of_two_and_k(metrics):
    figures = metrics.figures()
    always = {"length", "truncated", "crashed"}
    passes = {"avg@5", "pass@1", "pass@2", "pass@4", "pass@5"}
    assert set(figures["math"]) == passes | {"maj@5"} | always
    assert set(figures["code"]) == passes | always
    assert set(figures["plain"]) == {"length", "truncated"}
    assert figures["math"]["pass@2"].mean == pytest.approx((1 - 1 / 10 + 1 - 6 / 10) / 2)
    assert figures["math"]["crashed"].mean == pytest.approx(0.1)


def test_figures_agree_with_the_logged_ones_and_have_intervals(metrics):
    figures, logged = metrics.figures(), metrics.compute("x")
    for name, value in logged.items():
        _, dataset, figure = name.split("/")
        assert figures[dataset][figure].mean == pytest.approx(value)
    low, high = share_interval(torch.tensor([0.6, 0.2]))
    assert (figures["math"]["avg@5"].low, figures["math"]["avg@5"].high) == pytest.approx((low.item(), high.item()))


def test_partial_credit_counts_towards_avg_and_not_towards_pass(metrics):
    assert metrics.figures()["code"]["avg@5"].mean == pytest.approx(1.5 / 5)
    assert metrics.figures()["code"]["pass@1"].mean == pytest.approx(1 / 5)


def test_one_sample_logs_no_pass_and_no_majority():
    metrics = EvaluationMetrics([prompt(0)])
    metrics.update(rows(0, [1], ["7"]))
    assert set(metrics.compute("t")) == {"t/math/avg@1", "t/math/length", "t/math/truncated"}
    assert set(metrics.figures()["math"]) == {"avg@1", "pass@1", "length", "truncated", "crashed"}


def test_counting_may_go_on_after_the_figures(metrics):
    metrics.figures()
    metrics.compute("t")
    metrics.update(rows(9, [1, 1, 1, 1, 1], ["2"] * 5))
    assert metrics.compute("t")["t/math/avg@5"] == pytest.approx((0.6 + 0.2 + 1) / 3)
    assert metrics.compute("t")["t/math/maj@5"] == pytest.approx((1 + 0 + 1) / 3)


def test_a_data_set_that_no_row_came_from_warns_nobody(recwarn):
    metrics = EvaluationMetrics([prompt(0), prompt(1, "other")])
    metrics.update(rows(0, [1, 0]))
    figures = metrics.compute("t")
    assert figures["t/math/avg@2"] == 0.5
    assert figures["t/other/length"] != figures["t/other/length"]
    assert not recwarn.list
