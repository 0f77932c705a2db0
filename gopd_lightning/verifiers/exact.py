"""Exact match of a response with its ground truth."""

from collections.abc import Sequence

from gopd_lightning.errors import InputError
from gopd_lightning.records import Prompt, Verdict
from gopd_lightning.verifiers.protocol import Verifier


class ExactMatch(Verifier):
    """Reward 1.0 when the response equals the answer, white space at both ends aside; else 0.0."""

    def __init__(self, ignore_case: bool = False) -> None:
        """Choose how strict the comparison is.

        Args:
            ignore_case: Compare without regard to upper and lower case.
        """
        self.ignore_case = ignore_case

    def check(self, prompt: Prompt) -> None:
        """Refuse a prompt without an answer.

        Args:
            prompt: A prompt that will be graded.

        Raises:
            InputError: The answer is missing or blank.
        """
        if prompt.answer is None or not prompt.answer.strip():
            raise InputError(f"{prompt.source}: no answer; exact match needs a non-empty one in every row")

    def verify(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Verdict]:
        """Grade a batch.

        Args:
            prompts: One prompt a response.
            responses: Response texts.

        Returns:
            One verdict a response.
        """
        return [self._verdict(*pair) for pair in zip(prompts, responses, strict=True)]

    def _verdict(self, prompt: Prompt, response: str) -> Verdict:
        answer = self._normal(response)
        right = prompt.answer is not None and self._normal(prompt.answer) == answer
        return Verdict(reward=float(right), answer=answer, reason="" if right else "not the answer", vote=answer)

    def _normal(self, text: str) -> str:
        text = text.strip()
        return text.casefold() if self.ignore_case else text
