"""Metrics of gopd: a pure function and a state holder each, in float64."""

from gopd_lightning.metrics.correctness import AvgAtK, PassAtK, avg_at_k, pass_at_k
from gopd_lightning.metrics.intervals import (
    Figure,
    bootstrap_interval,
    least_share,
    mean_and_stderr,
    paired_test,
    resampled_means,
    share_interval,
)
from gopd_lightning.metrics.problems import (
    CrashedShare,
    ProblemMean,
    ProblemMetric,
    ResponseLength,
    Surprisal,
    TruncationRate,
)
from gopd_lightning.metrics.sums import SumMetric
from gopd_lightning.metrics.token_mean import TokenMean, weighted_sums
from gopd_lightning.metrics.votes import MajAtK, maj_at_k

__all__ = [
    "AvgAtK",
    "CrashedShare",
    "Figure",
    "MajAtK",
    "PassAtK",
    "ProblemMean",
    "ProblemMetric",
    "ResponseLength",
    "SumMetric",
    "Surprisal",
    "TokenMean",
    "TruncationRate",
    "avg_at_k",
    "bootstrap_interval",
    "least_share",
    "maj_at_k",
    "mean_and_stderr",
    "paired_test",
    "pass_at_k",
    "resampled_means",
    "share_interval",
    "weighted_sums",
]
