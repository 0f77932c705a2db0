"""GRPO: group-normalised advantages of verifiable rewards, to make experts and to compare with."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gopd_lightning.errors import InputError
from gopd_lightning.logprobs import States
from gopd_lightning.losses import logprob_loss
from gopd_lightning.objectives.importance import truncated_importance_weights
from gopd_lightning.objectives.protocol import FrozenScores, TokenLoss, Tokens
from gopd_lightning.records import Row, groups


def grpo_advantages(rewards: Tensor, normalise_std: bool = True, epsilon: float = 1e-6) -> Tensor:
    """Advantage of each sample within its group: (reward - group mean) / (group std + epsilon).

    Args:
        rewards: (prompts, n) rewards of the n samples of each prompt.
        normalise_std: Divide by the group's standard deviation (GRPO); False only subtracts the mean.
        epsilon: Keeps groups of equal rewards finite; their advantages are 0.

    Returns:
        (prompts, n) advantages (DeepSeekMath, arXiv 2402.03300, section 4.1).
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if not normalise_std:
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + epsilon)


class GRPOObjective:
    """-A_i * w_t * S(y_t) / sg S(y_t): the policy gradient of one update a batch, where clipping is inert.

    Args:
        normalise_std: See `grpo_advantages`.
        importance_weight_cap: See `SampledGOPD`.
    """

    needs = frozenset({"rewards"})

    def __init__(self, normalise_std: bool = True, importance_weight_cap: float | None = None) -> None:
        self.normalise_std = normalise_std
        self.importance_weight_cap = importance_weight_cap

    def prepare(self, rows: Sequence[Row]) -> None:
        """Set every row's advantage from the rewards of its group.

        Args:
            rows: Rows of the step, the samples of one prompt side by side.

        Raises:
            InputError: A prompt has one sample only, so that there is no group to compare with.
        """
        for group in groups(rows):
            if len(group) < 2:
                raise InputError("GRPO compares the samples of a prompt: set sampling.n to 2 or more")
            rewards = torch.tensor([[row.reward or 0.0 for row in group]])
            for row, value in zip(group, grpo_advantages(rewards, self.normalise_std)[0], strict=True):
                row.advantage = float(value)

    def __call__(self, student: States, frozen: FrozenScores | None, tokens: Tokens) -> TokenLoss:
        """The loss with gradient through log S only."""

        def weight(logprobs: Tensor, rows: slice) -> Tensor:
            engine = None if tokens.engine_logprobs is None else tokens.engine_logprobs[rows]
            return truncated_importance_weights(logprobs, engine, self.importance_weight_cap)

        def loss(logprobs: Tensor, rows: slice) -> Tensor:
            ratio = (logprobs - logprobs.detach()).exp()
            return -tokens.advantages[rows] * weight(logprobs, rows) * ratio

        out = logprob_loss(student, tokens.ids, tokens.weights, loss)
        statistics = {
            "student": out.logprobs,
            "entropy": out.entropy,
            "advantage": tokens.advantages,
            "importance_weight": weight(out.logprobs, slice(None)),
        }
        return TokenLoss(out.total, out.losses, statistics)
