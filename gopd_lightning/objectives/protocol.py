"""The objective protocol: scores and weights of tokens in, their loss and statistics out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from gopd_lightning.logprobs import States, TokenScores
from gopd_lightning.records import Row


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The N response tokens of a micro-batch, flat in row order.

    Attributes:
        ids: (N,) sampled token ids.
        engine_logprobs: (N,) the rollout engine's own log-probs, or None when it gave none.
        advantages: (N,) each row's advantage at each of its tokens (0 unless the objective's `prepare` set it).
        weights: (N,) weight of each token's loss in the step's loss, see `token_weights`.
    """

    ids: Tensor
    weights: Tensor
    engine_logprobs: Tensor | None
    advantages: Tensor


@dataclass(frozen=True, kw_only=True)
class FrozenScores:
    """What the frozen models of a micro-batch say: the domain's teacher and, if lambda != 1, its reference.

    Attributes:
        teacher: The teacher's scores of the sampled tokens.
        reference: The reference's, or None when `reward_scale` is 1.
        reward_scale: lambda of this teacher.
    """

    teacher: TokenScores
    reference: TokenScores | None
    reward_scale: float


class TokenLoss(NamedTuple):
    """The weighted loss of a micro-batch, and the detached figures of each token (N,).

    Every objective reports the statistics `student` (log-prob) and `entropy`; those with frozen models `teacher`,
    `reference` (when it was run) and `advantage` besides.

    Attributes:
        total: The sum of the tokens' losses times their weights, a scalar with gradient.
        losses: The losses before their weights.
        statistics: More figures by name.
    """

    total: Tensor
    losses: Tensor
    statistics: dict[str, Tensor]


class Objective(Protocol):
    """One estimator of one loss. Pure: no trainer, no logging, no collectives.

    Attributes:
        needs: What must be computed for it: a subset of {"teacher", "hidden", "rewards"}. Nothing else is; "hidden"
            asks for the frozen models' hidden states beside "teacher", which asks for log-probs only.
    """

    needs: frozenset[str]

    def prepare(self, rows: Sequence[Row]) -> None:
        """Look at all rows of the step on this rank before the first micro-batch (GRPO sets advantages)."""

    def __call__(self, student: States, frozen: FrozenScores | None, tokens: Tokens) -> TokenLoss:
        """Loss and statistics of one micro-batch.

        Args:
            student: The student's hidden states, with gradient, and head.
            frozen: The frozen models' when `needs` holds "teacher", else None.
            tokens: The sampled tokens.

        Returns:
            The sum of the tokens' losses times their weights, and the figures of each token.
        """
        ...
