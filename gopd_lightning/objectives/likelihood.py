"""Maximum likelihood of given responses: supervised fine-tuning and pretraining."""

from collections.abc import Sequence

from gopd_lightning.logprobs import States, token_logprobs
from gopd_lightning.objectives.protocol import FrozenScores, TokenLoss, Tokens
from gopd_lightning.records import Row


class Likelihood:
    """-log S(y_t) of every response token."""

    needs: frozenset[str] = frozenset()

    def prepare(self, rows: Sequence[Row]) -> None:
        """Nothing to prepare."""

    def __call__(self, student: States, frozen: FrozenScores | None, tokens: Tokens) -> TokenLoss:
        """Loss (N,) in nats a token."""
        scores = token_logprobs(student, tokens.ids)
        return TokenLoss(-scores.logprobs, {"student": scores.logprobs.detach(), "entropy": scores.entropy})
