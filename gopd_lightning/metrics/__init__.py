"""Metrics of gopd: a pure function and a state holder each, summed in float64."""

from gopd_lightning.metrics.correctness import AvgAtK, PassAtK, avg_at_k, mean_and_stderr, pass_at_k
from gopd_lightning.metrics.sums import SumMetric
from gopd_lightning.metrics.token_mean import TokenMean, weighted_sums

__all__ = [
    "AvgAtK",
    "PassAtK",
    "SumMetric",
    "TokenMean",
    "avg_at_k",
    "mean_and_stderr",
    "pass_at_k",
    "weighted_sums",
]
