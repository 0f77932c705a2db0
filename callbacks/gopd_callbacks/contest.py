"""Measuring the models of a run against each other: base, teachers and student on the same prompts and seeds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gopd_callbacks.rollout import Rollout
from gopd_lightning.metrics import AvgAtK
from gopd_lightning.models.folders import base_path
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.records import Prompt, Row, seed_of
from gopd_lightning.rollouts import RolloutEngine, Sampling, grade, sample_rows
from gopd_lightning.verifiers import Verifier


@dataclass(frozen=True)
class Accuracy:
    """Share of right samples of one data set, its standard error over prompts, and the number of prompts."""

    mean: float
    stderr: float
    prompts: int


@dataclass(frozen=True)
class Contest:
    """Prompts, an engine and verifiers that several models are put through.

    Attributes:
        module: The LightningModule: tokenizer, vocabulary, routes.
        engine: The rollout engine.
        verifiers: By domain.
        prompts: This rank's prompts; every rank's are counted.
        sizes: Number of prompts of every data set over all ranks.
        seed: First part of every sampling seed.
    """

    module: Any
    engine: RolloutEngine
    verifiers: dict[str, Verifier]
    prompts: Sequence[Prompt]
    sizes: Mapping[str, int]
    seed: int

    def answers(self, name: str, model: nn.Module, sampling: Sampling) -> list[Row]:
        """Answers of one model to this rank's prompts, not graded yet.

        Args:
            name: The model's name in the run; it reads prompts by its own chat template.
            model: The Hugging Face model.
            sampling: How it answers.
        """
        self.engine.wake()
        self.engine.sync(model, -1 - seed_of(name) % 2**30)  # never mistaken for a step of the student
        rows = sample_rows(
            self.engine,
            self.prompts,
            sampling,
            (self.seed, "evaluation"),
            self.module.tokenizer,
            self.module.vocabulary,
            name,
        )
        self.engine.sleep()
        return rows

    def graded(self, rows: list[Row]) -> list[Row]:
        """The same rows with their verdicts; runs beside `answers` in another thread."""
        grade(rows, self.verifiers)
        return rows

    def accuracy(self, rows: Sequence[Row], samples: int) -> dict[str, Accuracy]:
        """Accuracy by data set, over all ranks (a collective).

        Args:
            rows: Graded answers of one model.
            samples: Of each prompt.
        """
        return {dataset: self._count(dataset, rows, samples) for dataset in self.sizes}

    def _count(self, dataset: str, rows: Sequence[Row], samples: int) -> Accuracy:
        """Accuracy of one data set over all ranks."""
        rewards = [row.reward or 0.0 for row in rows if row.prompt.dataset == dataset]
        correct = torch.tensor(rewards, dtype=torch.float64, device=self.module.device).view(-1, samples).sum(1)
        metric = AvgAtK().to(self.module.device)
        metric.update(correct, torch.full_like(correct, samples))
        return Accuracy(float(metric.compute()), float(metric.stderr()), self.sizes[dataset])


def contest_of(rollout: Rollout, trainer: Any, module: Any, split: str) -> Contest:
    """The contest of a run on one split's prompts that have a verifier.

    Args:
        rollout: Gives engine, verifiers and seed.
        trainer: Gives the data and the rank.
        module: The LightningModule.
        split: val or test.
    """
    prompts = [p for p in trainer.datamodule.prompts.get(split, ()) if p.domain in rollout.verifiers]
    return Contest(
        module=module,
        engine=rollout.engine,
        verifiers=rollout.verifiers,
        prompts=prompts[trainer.global_rank :: trainer.world_size],
        sizes=Counter(prompt.dataset for prompt in prompts),
        seed=rollout.seed,
    )


def rollout_of(trainer: Any) -> Rollout:
    """The run's rollout callback.

    Raises:
        ValueError: There is none.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, Rollout):
            return callback
    raise ValueError("this callback needs gopd_callbacks.Rollout beside it: it samples with its engine")


def frozen_contestants(module: Any) -> list[str]:
    """Names of the models that do not change during the run: the base and the teachers."""
    teachers = [route.teacher for route in module.routing.routes.values()]
    return ["base", *(name for name in teachers if module.routing.specs[name].url is None)]


@contextmanager
def contestant(module: Any, name: str) -> Iterator[nn.Module]:
    """The model behind a name: base (the student's initial weights), a frozen model, or student."""
    if name == "student":
        yield module.student
    elif module.frozen is not None and name in module.frozen:
        with module.frozen.using(name) as model:
            yield model
    else:
        spec = ModelSpec(path=base_path(module.spec.path), dtype=module.spec.dtype)
        bank = FrozenBank({name: spec}, module.vocabulary.size, module.trainer.strategy.root_device)
        with bank.using(name) as model:
            yield model
