"""What every verifier is: a response in, a reward in [0, 1] out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gopd_lightning.records import Prompt, Verdict


class Verifier(ABC):
    """Grades responses. A subclass needs `verify` only; the other methods do nothing unless overridden.

    A class and no protocol: YAML names verifiers by `class_path`, and jsonargparse takes an own class for a protocol's
    only if every annotation is the same.
    """

    def start(self) -> str | None:
        """Get ready before a run begins.

        Returns:
            What the user should know before it does (which sandbox is in force, say); None for nothing.

        Raises:
            InputError: This machine cannot do it.
        """
        return None

    def check(self, prompt: Prompt) -> None:  # noqa: B027 (nothing to look at is the rule)
        """Look at one prompt's ground truth at load time.

        Args:
            prompt: A prompt that this verifier will be asked to grade.

        Raises:
            InputError: The answer is missing or cannot be used; the message names `prompt.source`.
        """

    @abstractmethod
    def verify(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[Verdict | float]:
        """Grade a batch.

        Args:
            prompts: One prompt a response (repeated for several samples of one prompt).
            responses: Response texts.

        Returns:
            A verdict, or just its reward in [0, 1], for every response, in order.
        """
