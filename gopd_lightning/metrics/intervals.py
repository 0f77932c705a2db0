"""Intervals of a mean over problems: the percentile cluster bootstrap, and what few or equal values can show.

Problems are what is drawn again, never samples: the samples of one problem resemble each other, and a test set
is a draw of problems. Whoever needs an interval hands over one value a problem; values are sorted first, so that
the order in which ranks or files give them changes nothing.

A resample holds nothing that the sample does not. Where every response is right, the bootstrap gives [1, 1], and
close to that it is far too narrow. Of n right problems the exact interval of Clopper and Pearson (Biometrika 26,
1934) begins at (alpha / 2) ** (1 / n); no other outcome of n problems can show more, so no lower end of a share
lies above that, and no upper end below its mirror image. 30 of 30 gives [0.884, 1]. This only ever widens.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

RESAMPLES = 10_000
SEED = 0
_CHUNK = 2**21  # draws held at once: two times 16 MiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A mean over problems with its interval; NaN where it is not defined.

    Attributes:
        mean: Mean over problems.
        low: Lower end of the interval.
        high: Upper end of the interval.
        stderr: Standard error of the mean.
    """

    mean: float
    low: float
    high: float
    stderr: float

    def as_dict(self) -> dict[str, float | None]:
        """The four numbers by name, for JSON: None stands for NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def mean_and_stderr(per_prompt_means: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over prompts and its standard error.

    Args:
        per_prompt_means: One figure a prompt, [prompts].

    Returns:
        Mean and standard error (sample deviation over the root of the number of prompts), float64 scalars.
        The error of fewer than two prompts is NaN.
    """
    values = per_prompt_means.double()
    count = values.new_tensor(values.numel())
    mean = values.mean()
    variance = (values - mean).square().sum() / (count - 1)
    return mean, (variance / count).sqrt()


def resampled_means(values: Tensor, resamples: int = RESAMPLES, seed: int = SEED) -> Tensor:
    """Means of data sets drawn from this one with replacement, each as large as this one.

    Args:
        values: One value a problem, [problems], or several columns of them, [problems, columns]; at least one
            problem. All columns are drawn alike.
        resamples: Number of draws.
        seed: Of the draws, which depend on it and on the number of problems only.

    Returns:
        float64 [resamples] or [resamples, columns], on the CPU. Memory does not grow with problems x resamples.
    """
    values = values.detach().cpu().double()
    problems = len(values)
    generator = torch.Generator().manual_seed(seed)
    one = torch.ones((), dtype=torch.float64)
    means = []
    for size in _chunks(resamples, max(1, _CHUNK // problems)):
        draws = torch.randint(problems, (size, problems), generator=generator)
        times = torch.zeros(size, problems, dtype=torch.float64).scatter_add_(1, draws, one.expand(size, problems))
        means.append(times @ values / problems)
    return torch.cat(means)


def _chunks(total: int, most: int) -> list[int]:
    """Sizes of at most `most` that add up to `total`."""
    return [min(most, total - start) for start in range(0, total, most)]


def bootstrap_interval(values: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Percentile bootstrap interval of a mean over problems.

    Args:
        values: One value a problem, [problems] or [problems, columns].
        level: Share of data sets whose interval is to hold the true mean.

    Returns:
        Lower and upper end, float64 scalars or [columns]; NaN for fewer than two problems.
    """
    if len(values) < 2:
        undefined = torch.full(values.shape[1:], math.nan, dtype=torch.float64)
        return undefined, undefined.clone()
    means = resampled_means(values.sort(dim=0).values)
    tail = (1 - level) / 2
    return means.quantile(tail, dim=0), means.quantile(1 - tail, dim=0)


def share_interval(values: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Interval of a mean of values in [0, 1]: the bootstrap's, never narrower than n equal problems allow.

    Args:
        values: One value in [0, 1] a problem, [problems] or [problems, columns].
        level: Share of data sets whose interval is to hold the true mean (at least; more near 0 and 1).

    Returns:
        Lower and upper end, float64 scalars or [columns]; NaN for no problem at all.
    """
    if len(values) == 0:
        return bootstrap_interval(values, level)
    means = values.detach().cpu().double().mean(dim=0)
    low, high = (means, means) if len(values) == 1 else bootstrap_interval(values, level)
    most = least_share(len(values), level)
    return low.clamp(max=most), high.clamp(min=1 - most)


def least_share(trials: int, level: float = 0.95) -> float:
    """Lower end of the Clopper-Pearson interval when all of some trials succeed.

    Args:
        trials: Number of trials, at least 1.
        level: Of the two-sided interval.
    """
    return float(((1 - level) / 2) ** (1 / trials))


def paired_test(differences: Tensor, level: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
    """Paired bootstrap of the mean difference of two runs over the same problems.

    Few problems that differ, all in one direction, look certain to the bootstrap. Given the sizes of the m
    differences, their signs are m trials, as in McNemar's test: the p is never below 2 * 0.5 ** m, that of m
    equal signs, and the interval never narrower than what a share of `least_share(m)` of equal signs gives.

    Args:
        differences: One difference a problem, [problems] or [problems, columns], at least one problem.
        level: Of the interval.

    Returns:
        Lower end, upper end and two-sided p, float64 scalars or [columns]; 0, 0 and 1 where no problem differs.
    """
    differences = differences.detach().cpu().double()
    differing = (differences != 0).sum(dim=0).double()
    means = resampled_means(differences.sort(dim=0).values)
    share = ((1 - level) / 2) ** (1 / differing)  # `least_share`; 0 where nothing differs
    nearest = differences.abs().mean(dim=0) * (2 * share - 1)
    low = means.quantile((1 - level) / 2, dim=0).minimum(nearest)
    high = means.quantile((1 + level) / 2, dim=0).maximum(-nearest)
    rounding = 1e-12
    tail = torch.minimum((means <= rounding).sum(dim=0), (means >= -rounding).sum(dim=0))
    p = (2 * (tail.double() + 1) / (len(means) + 1)).maximum(2 * 0.5**differing)
    return low, high, p.clamp(max=1)
