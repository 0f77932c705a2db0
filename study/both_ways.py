"""`gopd test` with two columns: sampled at temperature 1, and greedy, so that sharpening is told from capability."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from gopd_callbacks.evaluation import Evaluation
from gopd_callbacks.measurement import Measured


class BothWays(Evaluation):
    """Measures the student twice: with its `sampling`, and with one greedy answer a prompt."""

    def measured(self, module: Any, domains: Collection[str]) -> list[Measured]:
        """The student, sampled and greedy.

        Args:
            module: The LightningModule.
            domains: Domains of the prompts.
        """
        (sampled,) = super().measured(module, domains)
        return [
            replace(sampled, name="sampled"),
            replace(sampled, name="greedy", sampling=self.sampling.greedy()),
        ]
