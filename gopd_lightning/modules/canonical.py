"""No model: in its place, the solutions that come with an evaluation set."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule

from gopd_lightning.data.rows import Messages
from gopd_lightning.records import Batch

_NO_TOKENS = [0]  # a prompt must have some


class TextOnly:
    """Reads prompts as text, for want of a tokenizer."""

    def encode_many(self, prompts: Sequence[str | Messages], sources: Sequence[str]) -> list[tuple[list[int], str]]:
        """Texts as they are, and chat messages one after the other.

        Args:
            prompts: Texts and lists of messages, in any mixture.
            sources: File and row of each.

        Returns:
            A single token id and the text of each, in order.
        """
        return [(_NO_TOKENS, text) for text in map(_text, prompts)]

    def encode_strings(self, texts: Sequence[str]) -> list[list[int]]:
        """A single token id for each text."""
        return [_NO_TOKENS for _ in texts]


class Canonical(LightningModule):
    """The module of a self-test (`gopd_callbacks.SelfTest`): it holds no weights, and generates nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = {"student": TextOnly()}
        self.domains = None
        self.needs: frozenset[str] = frozenset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Do nothing: the batch has been graded already."""


def _text(prompt: str | Messages) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
