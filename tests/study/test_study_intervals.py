"""Intervals over prompts and seeds are as wide as they should be, and verdicts follow from them alone."""

import numpy as np
import pytest

from study.intervals import FAILS, HOLDS, MISSING, OPEN, Effect, _seed_draws, effect, together, verdict

INF = float("inf")
RNG = np.random.default_rng(0)


def table(**groups):
    return {name: {"math": by_seed, "code": by_seed} for name, by_seed in groups.items()}


def found(low, high):
    return Effect(mean=(low + high) / 2, low=low, high=high, seeds=3, domains={})


def test_a_difference_that_is_the_same_on_every_prompt_and_seed_is_certain():
    base = {seed: RNG.normal(size=100) for seed in range(3)}
    better = {seed: values + 2 for seed, values in base.items()}
    one = effect(table(a=better, b=base), {"a": 1, "b": -1})
    assert one is not None
    assert (one.mean, one.low, one.high) == pytest.approx((2, 2, 2))
    assert one.seeds == 3


def test_prompts_that_differ_widen_the_interval_as_their_standard_error_says():
    values = RNG.normal(size=400)
    one = effect({"a": {"math": {None: values}}}, {"a": 1}, ("math",))
    assert one is not None
    assert one.high - one.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    assert one.seeds == 0


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_variance_over_few_seeds_is_unbiased(seeds):
    levels = RNG.normal(size=seeds)
    drawn = levels[_seed_draws(seeds)].mean(axis=1)
    assert drawn.var() == pytest.approx(levels.var(ddof=1) / seeds, rel=0.05)


def test_seeds_that_differ_widen_the_interval():
    levels = {seed: np.full(50, float(seed)) for seed in range(3)}
    one = effect({"a": {"math": levels}}, {"a": 1}, ("math",))
    assert one is not None
    assert (one.low, one.high) == pytest.approx((0, 2))


def test_only_seeds_that_all_groups_have_are_compared():
    a = {seed: np.full(10, float(seed)) for seed in range(5)}
    b = {seed: np.zeros(10) for seed in range(3)}
    one = effect(table(a=a, b=b), {"a": 1, "b": -1})
    assert one is not None
    assert (one.mean, one.seeds) == (1.0, 3)


def test_a_model_without_seeds_is_compared_with_every_seed():
    a = {seed: np.full(10, float(seed)) for seed in range(3)}
    one = effect(table(a=a, teacher={None: np.ones(10)}), {"a": 1, "teacher": -1})
    assert one is not None
    assert (one.mean, one.seeds) == (0.0, 3)


def test_prompts_are_paired():
    shared = RNG.normal(size=100)
    pair = table(a={None: shared + 1}, b={None: shared})
    one = effect(pair, {"a": 1, "b": -1})
    assert one is not None
    assert one.high - one.low < 1e-9


def test_domains_weigh_the_same_whatever_their_prompts():
    uneven = {"a": {"math": {None: np.ones(10)}, "code": {None: np.zeros(90)}}}
    one = effect(uneven, {"a": 1})
    assert one is not None
    assert one.mean == 0.5
    assert one.domains == {"math": 1.0, "code": 0.0}


def test_a_group_that_is_missing_gives_no_effect():
    assert effect(table(a={0: np.ones(3)}), {"a": 1, "b": -1}) is None
    assert effect(table(a={0: np.ones(3)}, b={1: np.ones(3)}), {"a": 1, "b": -1}) is None


@pytest.mark.parametrize(
    ("interval", "region", "wanted"),
    [
        ((0.5, 3), (0, INF), HOLDS),
        ((0.1, 0.9), (0, INF), HOLDS),
        ((-3, -0.5), (0, INF), FAILS),
        ((-0.8, 0.9), (0, INF), FAILS),
        ((-0.8, 1.2), (0, INF), OPEN),
        ((-3, -0.5), (-INF, 0), HOLDS),
        ((-1.5, 1.9), (-2, 2), HOLDS),
        ((-0.5, 2.1), (-2, 2), OPEN),
        ((2.1, 4), (-2, 2), FAILS),
        ((-0.9, 5), (-1, INF), HOLDS),
        ((-0.9, 0.5), (-INF, 1), HOLDS),
        ((-4, 0.9), (-1, INF), OPEN),
    ],
)
def test_verdicts(interval, region, wanted):
    assert verdict(found(*interval), region, nothing=1.0) == wanted


def test_no_effect_is_no_verdict():
    assert verdict(None, (0, INF), 1.0) == MISSING


def test_all_parts_must_hold_and_one_that_does_not_decides():
    assert together([HOLDS, HOLDS]) == HOLDS
    assert together([HOLDS, OPEN]) == OPEN
    assert together([OPEN, FAILS, MISSING]) == FAILS
    assert together([HOLDS, MISSING, OPEN]) == MISSING
