"""Loaders of prompts: a stateful stream for training, fixed batches for evaluation."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

import torch

from gopd_lightning.errors import InputError
from gopd_lightning.records import Batch, Prompt, seed_of


class PromptLoader:
    """The training prompts: what a step gets depends on the step number and the seed, and on nothing else.

    Each source is an endless stream of permutations of its rows. The streams are merged by weight, evenly
    (item j of a source of weight w stands at (j + 1/2) / w), and a step takes the next `prompts_per_step` of
    the merged stream; so every rank's slice has the same mixture, and shares are exact in the long run.

    Sized, so that Lightning does not fetch ahead; its state is the next step's number, equal on every rank.

    Args:
        sources: Prompts and weight of each source.
        prompts_per_step: Prompts of one step, over all ranks.
        seed: Seed of the permutations.
        rank: This process.
        world_size: Number of processes.
        limit: How much of an epoch the trainer takes (`limit_train_batches`): a share, or a number of steps.

    Raises:
        InputError: There is nothing to draw from, or the ranks cannot share the prompts evenly.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Sequence[Prompt], float]],
        prompts_per_step: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        limit: int | float = 1.0,
    ) -> None:
        _check(sources, prompts_per_step, world_size)
        self.sources = [prompts for prompts, _ in sources]
        self.weights = [Fraction(str(weight)) for _, weight in sources]
        self.prompts_per_step = prompts_per_step
        self.seed = seed
        self.share = slice(rank * prompts_per_step // world_size, (rank + 1) * prompts_per_step // world_size)
        self.taken = min(limit, len(self)) if isinstance(limit, int) else int(limit * len(self))
        self.step = 0
        self._order = lru_cache(maxsize=2 * len(sources))(self._permutation)

    def __len__(self) -> int:
        """Steps of an epoch: enough for as many prompts as the sources hold together."""
        return math.ceil(sum(map(len, self.sources)) / self.prompts_per_step)

    def __iter__(self) -> Iterator[Batch]:
        """This rank's batches up to the end of the epoch; the next call goes on with the next step."""
        for _ in range(self.taken - self.step % self.taken if self.taken else 0):
            prompts = self.prompts_at(self.step)[self.share]
            # Counted before the batch is handed out: a checkpoint written during a step resumes after it.
            self.step += 1
            yield Batch(prompts)

    def state_dict(self) -> dict[str, int]:
        """The number of the next step."""
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where `state_dict` was taken.

        Args:
            state_dict: What `state_dict` gave.
        """
        self.step = int(state_dict["step"])

    def prompts_at(self, step: int) -> list[Prompt]:
        """The prompts of one step, of all ranks together.

        Args:
            step: Number of the step, from 0.

        Returns:
            `prompts_per_step` prompts, the sources evenly mixed.
        """
        first = _counts(self.weights, step * self.prompts_per_step)
        last = _counts(self.weights, (step + 1) * self.prompts_per_step)
        draws = [
            (Fraction(2 * item + 1) / weight, source, item)
            for source, weight in enumerate(self.weights)
            for item in range(first[source], last[source])
        ]
        return [self._draw(source, item) for _, source, item in sorted(draws)]

    def _draw(self, source: int, item: int) -> Prompt:
        epoch, place = divmod(item, len(self.sources[source]))
        return self.sources[source][self._order(source, epoch)[place]]

    def _permutation(self, source: int, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", source, epoch))
        order: list[int] = torch.randperm(len(self.sources[source]), generator=generator).tolist()
        return order


class EvalLoader:
    """Prompts for validation, test and prediction: in order, one data set after the other.

    Every rank gets its share of every batch, so all have the same number of batches; shares differ by at most
    one prompt, and the last batch may leave some ranks without any.

    Args:
        prompts: Prompts of all data sets.
        batch_size: Prompts of a batch, over all ranks.
        rank: This process.
        world_size: Number of processes.

    Raises:
        InputError: `batch_size` is below 1.
    """

    def __init__(self, prompts: Sequence[Prompt], batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise InputError(f"data.init_args.eval_batch_size = {batch_size} must be at least 1")
        self.prompts = sorted(prompts, key=lambda prompt: prompt.dataset)
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Number of batches, the same on every rank."""
        return math.ceil(len(self.prompts) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """This rank's share of each batch."""
        for start in range(0, len(self.prompts), self.batch_size):
            batch = self.prompts[start : start + self.batch_size]
            yield Batch(batch[self.rank :: self.world_size])


def _check(sources: Sequence[tuple[Sequence[Prompt], float]], prompts_per_step: int, world_size: int) -> None:
    if not sources or not all(prompts for prompts, _ in sources):
        raise InputError("data.init_args.train: there are no prompts to train on")
    if prompts_per_step < 1 or prompts_per_step % world_size:
        key = f"data.init_args.prompts_per_step = {prompts_per_step}"
        raise InputError(f"{key} must be a positive multiple of the {world_size} processes")


def _counts(weights: Sequence[Fraction], total: int) -> list[int]:
    """How many of the first `total` items of the merged stream come from each source, in exact arithmetic."""
    scale = sum(weights)
    # No source has fewer than this (half an item each is the most that rounding can add up to) ...
    sure = max(Fraction(0), total - Fraction(len(weights), 2)) / scale
    counts = [math.floor(sure * weight + Fraction(1, 2)) for weight in weights]
    while sum(counts) < total:  # ... and these few stand next in the stream.
        nearest = min(range(len(weights)), key=lambda i: Fraction(2 * counts[i] + 1) / weights[i])
        counts[nearest] += 1
    return counts
