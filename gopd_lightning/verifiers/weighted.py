"""Several verifiers as one reward."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt, Verdict
from gopd_lightning.verifiers.protocol import Verifier


@dataclass
class Part:
    """One verifier of a sum.

    Args:
        verifier: The verifier.
        weight: Its share of the reward, relative to the others'.
    """

    verifier: Verifier
    weight: float = 1.0


class WeightedSum(Verifier):
    """The weighted mean of several verifiers' rewards; a response is right when all of them give 1.

    Answer and vote are the first part's; reasons are put together.

    Args:
        parts: The verifiers and their weights, which are divided by their sum.

    Raises:
        InputError: No part, or a weight that is not above 0.

    Example::

        verifiers:
          math:
            class_path: gopd_lightning.verifiers.WeightedSum
            init_args:
              parts:
                - {weight: 0.9, verifier: {class_path: gopd_lightning.verifiers.MathVerifier}}
                - {weight: 0.1, verifier: {class_path: my_rewards.Brevity}}
    """

    def __init__(self, parts: list[Part]) -> None:
        if not parts:
            raise InputError("WeightedSum.parts is empty; give at least one verifier")
        for part in parts:
            if not (math.isfinite(part.weight) and part.weight > 0):
                raise InputError(f"WeightedSum: weight {part.weight} must be above 0; leave the part out instead")
        self.parts = parts

    def start(self) -> str | None:
        """Start every part; what they say, in one line."""
        said = [line for part in self.parts if (line := part.verifier.start())]
        return "; ".join(dict.fromkeys(said)) or None

    def check(self, prompt: Prompt) -> None:
        """Let every part look at the prompt.

        Args:
            prompt: A prompt that will be graded.
        """
        for part in self.parts:
            part.verifier.check(prompt)

    def verify(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade a batch with every part.

        Args:
            prompts: One prompt a response.
            responses: Response texts.

        Returns:
            One verdict a response.
        """
        columns = [part.verifier.verify(prompts, responses) for part in self.parts]
        return [self._sum(verdicts) for verdicts in zip(*columns, strict=True)]

    def _sum(self, found: Sequence[Verdict | float]) -> Verdict:
        verdicts = [one if isinstance(one, Verdict) else Verdict(reward=float(one)) for one in found]
        total = math.fsum(part.weight for part in self.parts)
        reward = math.fsum(p.weight * v.reward for p, v in zip(self.parts, verdicts, strict=True)) / total
        return Verdict(
            reward=1.0 if all(verdict.reward == 1 for verdict in verdicts) else min(reward, 1.0),
            answer=verdicts[0].answer,
            reason="; ".join(verdict.reason for verdict in verdicts if verdict.reason),
            vote=verdicts[0].vote,
            crashed=any(verdict.crashed for verdict in verdicts),
        )
