"""Effects with intervals over prompts and seeds, and what they say about a claim.

The method in one sentence: the 95 % interval of a contrast is the percentile interval of 10,000 bootstrap means in
which the prompts of each domain and the training seeds are both drawn again, paired across everything that is compared,
and domains weigh the same; of S seeds S - 1 are drawn, which makes the variance over so few seeds unbiased.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from study.plan import DOMAINS

RESAMPLES = 10_000
LEVEL = 0.95
HOLDS, FAILS, OPEN, MISSING = "holds", "does not hold", "undecided", "not measured"

Array = NDArray[np.float64]
Table = Mapping[str, Mapping[str, Mapping[int | None, Array]]]
"""group -> domain -> seed (None: the model has none) -> one value a prompt."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A contrast, measured.

    Attributes:
        mean: The effect.
        low: Lower end of its interval.
        high: Upper end.
        seeds: Number of seeds that all of its groups have; 0 where no group has any.
        domains: The effect by domain.
    """

    mean: float
    low: float
    high: float
    seeds: int
    domains: Mapping[str, float]


def effect(table: Table, weights: Mapping[str, float], domains: Sequence[str] = DOMAINS) -> Effect | None:
    """The weighted sum of groups' means.

    Args:
        table: One measure of everything.
        weights: Weight of each group in the contrast, such as 1 and -1.
        domains: Domains over which is averaged.

    Returns:
        The effect; None where a group is missing or no seed is common to all.
    """
    if any(domain not in table.get(group, {}) for group in weights for domain in domains):
        return None
    seeds = _common_seeds([table[group][domain] for group in weights for domain in domains])
    if not seeds:
        return None
    by_domain = [_contrast(table, weights, domain, seeds) for domain in domains]
    means = np.mean([_prompt_draws(values.shape[1]) @ values.T for values in by_domain], axis=0)  # [resamples, seeds]
    drawn = np.take_along_axis(means, _seed_draws(len(seeds)), axis=1).mean(axis=1)
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    found = {domain: float(values.mean()) for domain, values in zip(domains, by_domain, strict=True)}
    mean = float(np.mean(list(found.values())))
    trained = 0 if seeds == [None] else len(seeds)
    return Effect(mean=mean, low=float(low), high=float(high), seeds=trained, domains=found)


def _common_seeds(groups: Sequence[Mapping[int | None, Array]]) -> list[int | None]:
    """Seeds that every group has; a group without seeds goes with all."""
    trained = [set(group) for group in groups if None not in group]
    return sorted(set.intersection(*trained), key=str) if trained else [None]


def _contrast(table: Table, weights: Mapping[str, float], domain: str, seeds: Sequence[int | None]) -> Array:
    """The contrast by seed and prompt, [seeds, prompts]."""
    total: Array | float = 0.0
    for group, weight in weights.items():
        by_seed = table[group][domain]
        total = total + weight * np.stack([by_seed.get(seed, by_seed.get(None)) for seed in seeds])
    return np.asarray(total)


@lru_cache
def _prompt_draws(prompts: int) -> Array:
    """Share of each prompt in each resample, [resamples, prompts]; rows sum to 1."""
    draws = np.random.default_rng(0).multinomial(prompts, np.full(prompts, 1 / prompts), size=RESAMPLES)
    return draws / prompts


@lru_cache
def _seed_draws(seeds: int) -> NDArray[np.int64]:
    """Which seeds are drawn in each resample, [resamples, max(1, seeds - 1)]."""
    return np.random.default_rng(1).integers(seeds, size=(RESAMPLES, max(1, seeds - 1)))


def verdict(found: Effect | None, region: tuple[float, float], nothing: float) -> str:
    """What an effect says about the claim that it lies in a region.

    Args:
        found: The effect.
        region: The claim: open ends, infinite on the side that it leaves free.
        nothing: Effects smaller than this are none: an interval within +-`nothing` refutes a claim of more or less.
    """
    if found is None:
        return MISSING
    if region[0] < found.low and found.high < region[1]:
        return HOLDS
    if found.high <= region[0] or found.low >= region[1]:
        return FAILS
    claims_a_difference = 0.0 in region
    if claims_a_difference and -nothing < found.low and found.high < nothing:
        return FAILS
    return OPEN


def together(verdicts: Sequence[str]) -> str:
    """The verdict of a claim of several parts: all must hold.

    Args:
        verdicts: Of the parts.
    """
    for answer in (FAILS, MISSING, OPEN):
        if answer in verdicts:
            return answer
    return HOLDS
