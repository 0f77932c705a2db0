"""The objective protocol: scores of tokens in, a loss a token and statistics out."""

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
    """

    ids: Tensor
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
    """A loss (N,) with gradient, and detached per-token statistics (N,) by name.

    Every objective reports `student` (log-prob) and `entropy`; those with frozen models `teacher`,
    `reference` (when it was run) and `advantage` besides.
    """

    loss: Tensor
    statistics: dict[str, Tensor]


class Objective(Protocol):
    """One estimator of one loss. Pure: no trainer, no logging, no collectives.

    Attributes:
        needs: What must be computed for it: a subset of {"teacher", "rewards"}. Nothing else is.
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
            Per-token loss to be weighted and summed by the caller, and statistics.
        """
        ...
