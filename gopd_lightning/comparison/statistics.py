"""From paired problems to figures, differences and tests.

Library code for these three tests exists (SciPy, statsmodels), but each is a few lines here, and the bootstrap must
be the one that `gopd_lightning.metrics` uses: the same figure has the same interval wherever it is printed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import comb

import torch
from torch import Tensor

from gopd_lightning.comparison.pairing import PairedSet
from gopd_lightning.metrics import Figure, mean_and_stderr, paired_test, share_interval

ALL_SETS = "all sets"


@dataclass(frozen=True, kw_only=True, slots=True)
class McNemar:
    """McNemar's exact test on sample 0 of every problem.

    Attributes:
        gained: Problems that only the other run has right.
        lost: Problems that only the first run has right.
        p: Two-sided.
    """

    gained: int
    lost: int
    p: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One run against the first, on one data set.

    Attributes:
        mean: Mean over problems of the other run's avg@k minus the first's.
        low: Lower end of the paired bootstrap's interval.
        high: Upper end.
        p: Two-sided p of the paired bootstrap.
        adjusted: The same after Holm's correction over the whole table.
        mcnemar: The test on sample 0.
    """

    mean: float
    low: float
    high: float
    p: float
    adjusted: float
    mcnemar: McNemar

    def verdict(self, level: float) -> str:
        """In one or two words: better, worse or within noise.

        Args:
            level: Of the intervals; the adjusted p must be below 1 - level.
        """
        if self.adjusted >= 1 - level:
            return "within noise"
        return "better" if self.mean > 0 else "worse"


@dataclass(frozen=True, kw_only=True, slots=True)
class SetComparison:
    """All runs on one data set.

    Attributes:
        name: The data set.
        problems: Number of problems compared.
        figures: avg@k of each run.
        differences: Of each run but the first to the first.
    """

    name: str
    problems: int
    figures: Sequence[Figure]
    differences: Sequence[Difference]


def compare(sets: Sequence[PairedSet], level: float) -> list[SetComparison]:
    """Figures, differences and tests of every data set, and of all sets together where there are several.

    Args:
        sets: What `pair` found.
        level: Of the intervals.
    """
    if len(sets) > 1:
        means = torch.cat([paired.means for paired in sets])
        sets = [*sets, PairedSet(name=ALL_SETS, means=means, firsts=torch.cat([paired.firsts for paired in sets]))]
    found = [_compared(paired, level) for paired in sets]
    adjusted = iter(holm([difference.p for one in found for difference in one.differences]))
    return [
        replace(one, differences=[replace(difference, adjusted=next(adjusted)) for difference in one.differences])
        for one in found
    ]


def _compared(paired: PairedSet, level: float) -> SetComparison:
    return SetComparison(
        name=paired.name,
        problems=len(paired.means),
        figures=_figures(paired.means, level),
        differences=_differences(paired, level),
    )


def _figures(means: Tensor, level: float) -> list[Figure]:
    lows, highs = share_interval(means, level)
    found = []
    for run, column in enumerate(means.T):
        mean, stderr = mean_and_stderr(column)
        found.append(Figure(mean=float(mean), low=float(lows[run]), high=float(highs[run]), stderr=float(stderr)))
    return found


def _differences(paired: PairedSet, level: float) -> list[Difference]:
    differences = paired.means[:, 1:] - paired.means[:, :1]
    tested = zip(differences.mean(dim=0), *paired_test(differences, level), strict=True)
    return [
        Difference(
            mean=float(mean),
            low=float(low),
            high=float(high),
            p=float(p),
            adjusted=float(p),
            mcnemar=mcnemar(paired.firsts[:, 0], paired.firsts[:, run]),
        )
        for run, (mean, low, high, p) in enumerate(tested, start=1)
    ]


def mcnemar(first: Tensor, other: Tensor) -> McNemar:
    """McNemar's exact test: are the problems that only one run has right spread like coin tosses?

    Args:
        first: Whether the first run is right, bool [problems].
        other: Whether the other is.
    """
    gained, lost = int((other & ~first).sum()), int((first & ~other).sum())
    tosses = gained + lost
    tail = sum(comb(tosses, i) for i in range(min(gained, lost) + 1))
    return McNemar(gained=gained, lost=lost, p=min(1.0, 2 * tail / 2**tosses))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of any false finding among all tests stays below the level.

    Args:
        ps: One p a test.

    Returns:
        Adjusted p of each, in the same order.
    """
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted
