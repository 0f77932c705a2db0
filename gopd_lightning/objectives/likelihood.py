"""Maximum likelihood of given responses: supervised fine-tuning and pretraining."""

from collections.abc import Sequence

from gopd_lightning.logprobs import States
from gopd_lightning.losses import logprob_loss
from gopd_lightning.objectives.protocol import FrozenScores, TokenLoss, Tokens
from gopd_lightning.records import Row


class Likelihood:
    """-log S(y_t) of every response token."""

    needs: frozenset[str] = frozenset()

    def prepare(self, rows: Sequence[Row]) -> None:
        """Nothing to prepare."""

    def __call__(self, student: States, frozen: FrozenScores | None, tokens: Tokens) -> TokenLoss:
        """-log S(y_t) in nats."""
        out = logprob_loss(student, tokens.ids, tokens.weights, lambda logprobs, rows: -logprobs)
        return TokenLoss(out.total, out.losses, {"student": out.logprobs, "entropy": out.entropy})
