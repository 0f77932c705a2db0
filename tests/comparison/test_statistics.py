from itertools import pairwise, product
from math import comb

import pytest
import torch

from gopd_lightning.comparison.pairing import PairedSet
from gopd_lightning.comparison.statistics import ALL_SETS, compare, holm, mcnemar
from gopd_lightning.metrics import share_interval


def paired(name: str, means: list[list[float]]) -> PairedSet:
    values = torch.tensor(means, dtype=torch.float64)
    return PairedSet(name=name, means=values, firsts=values >= 1)


def brute_force_mcnemar(gained: int, lost: int) -> float:
    """Chance of a split at least as uneven among all outcomes of fair coins."""
    tosses = gained + lost
    every = [sum(coins) for coins in product((0, 1), repeat=tosses)]
    return sum(abs(2 * heads - tosses) >= abs(gained - lost) for heads in every) / len(every)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 3), (5, 0), (2, 7), (10, 1)])
def test_mcnemar_equals_counting_coins(gained, lost):
    first = torch.tensor([False] * gained + [True] * lost + [True, False])
    other = torch.tensor([True] * gained + [False] * lost + [True, False])
    found = mcnemar(first, other)
    assert (found.gained, found.lost) == (gained, lost)
    assert found.p == pytest.approx(brute_force_mcnemar(gained, lost))


def test_mcnemar_of_thousands_is_exact():
    first = torch.arange(4_000) >= 2_100
    tail = sum(comb(4_000, i) for i in range(1_901))
    assert mcnemar(first, ~first).p == pytest.approx(2 * tail / 2**4_000, rel=1e-12)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]


def test_holm_finds_what_stepping_down_rejects():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        ps = (torch.rand(6, generator=generator) ** 3).tolist()
        adjusted = holm(ps)
        rejected = set()
        for rank, p in enumerate(sorted(ps)):
            if p >= 0.05 / (6 - rank):
                break
            rejected.add(p)
        assert {p for p, corrected in zip(ps, adjusted, strict=True) if corrected < 0.05} == rejected


def test_the_correction_counts_every_set_and_run():
    means = [[0.0, 0.25, 0.25]] * 8 + [[0.5, 0.5, 0.25]] * 2
    found = compare([paired("a", means), paired("b", means)], level=0.95)
    ps = [difference.p for one in found for difference in one.differences]
    adjusted = [difference.adjusted for one in found for difference in one.differences]
    assert len(ps) == 6
    assert adjusted == pytest.approx(holm(ps))
    assert max(adjusted[i] / ps[i] for i in range(6)) == 6


def test_all_sets_are_all_problems_with_the_same_weight():
    small, large = [[0.0, 1.0]] * 2, [[0.5, 0.5]] * 8
    found = compare([paired("small", small), paired("large", large)], level=0.95)[-1]
    assert (found.name, found.problems) == (ALL_SETS, 10)
    assert [figure.mean for figure in found.figures] == pytest.approx([0.4, 0.6])
    assert found.differences[0].mean == pytest.approx(0.2)


def test_one_set_needs_no_pool():
    assert [one.name for one in compare([paired("a", [[0, 1], [1, 1]])], level=0.95)] == ["a"]


def test_intervals_are_those_of_the_metric():
    values = torch.rand(40, 2, dtype=torch.float64)
    found = compare([paired("a", values.tolist())], level=0.9)[0]
    for run, figure in enumerate(found.figures):
        low, high = share_interval(values[:, run], 0.9)
        assert (figure.low, figure.high) == pytest.approx((low.item(), high.item()), abs=1e-12)


def test_pairing_sees_what_intervals_of_single_runs_cannot():
    levels = torch.linspace(0, 0.9, 50, dtype=torch.float64)
    found = compare([paired("a", torch.stack([levels, levels + 0.05 + 0.02 * levels], 1).tolist())], level=0.95)[0]
    assert found.figures[0].high > found.figures[1].mean
    assert found.differences[0].verdict(0.95) == "better"
    assert found.differences[0].low > 0.04


def test_verdicts_follow_the_corrected_p():
    means = [[0.0, 0.5]] * 7 + [[0.5, 0.0]] + [[0.5, 0.5]] * 12
    alone = compare([paired("a", means)], level=0.95)[0].differences[0]
    among = compare([paired(name, means) for name in "abcdefgh"], level=0.95)[0].differences[0]
    assert (alone.p, alone.low, alone.high) == (among.p, among.low, among.high)
    assert alone.p < 0.05 < among.adjusted
    assert (alone.verdict(0.95), among.verdict(0.95)) == ("better", "within noise")


def test_more_evidence_gives_a_smaller_p():
    ps = [compare([paired("a", [[0, 1]] * m + [[1, 1]] * 40)], 0.95)[0].differences[0].p for m in (1, 3, 6, 10)]
    assert all(more < less for less, more in pairwise(ps))
