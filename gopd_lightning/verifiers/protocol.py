"""The verifier protocol: a response in, a reward in [0, 1] out."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from gopd_lightning.records import Prompt


@runtime_checkable
class Verifier(Protocol):
    """Grades responses against the `answer` of their prompts."""

    def check(self, prompt: Prompt) -> None:
        """Look at one prompt's ground truth at load time.

        Args:
            prompt: A prompt that this verifier will be asked to grade.

        Raises:
            InputError: The answer is missing or cannot be used; the message names `prompt.source`.
        """

    def verify(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Grade a batch.

        Args:
            prompts: One prompt a response (repeated for several samples of one prompt).
            responses: Response texts.

        Returns:
            One reward in [0, 1] a response, in order.
        """
        ...
