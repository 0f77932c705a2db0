"""Generalized on-policy distillation: one objective, two estimators (paper 2602.12125, Eq. 11 to 14).

At every student-visited prefix the objective is KL(S || Q), Q = softmax(lambda * log T + (1 - lambda) * log R).
`SampledGOPD` estimates its gradient from the sampled token alone, as published; `FullGOPD` computes it exactly
over the vocabulary. lambda = 1 is on-policy distillation and never looks at the reference; lambda > 1 (ExOPD)
extrapolates past the teacher; 0 < lambda < 1 interpolates between reference and teacher.
"""

from collections.abc import Sequence

from torch import Tensor

from gopd_lightning.logprobs import States
from gopd_lightning.losses import divergence_loss, logprob_loss
from gopd_lightning.objectives.importance import truncated_importance_weights
from gopd_lightning.objectives.protocol import FrozenScores, TokenLoss, Tokens
from gopd_lightning.records import Row


def gopd_advantage(student: Tensor, teacher: Tensor, reference: Tensor | None, reward_scale: float) -> Tensor:
    """The advantage `lambda * (log T - log R) - (log S - log R)` of each token, to be maximised.

    Detached, without baseline, normalisation or return-to-go (paper 2602.12125, Eq. 14 with the sign turned).

    Args:
        student: Log-probs of the sampled tokens under the student, any shape.
        teacher: The same under the teacher.
        reference: The same under the reference; not read when reward_scale is 1, where it cancels.
        reward_scale: lambda.

    Returns:
        Advantages of the same shape, without gradient.

    Raises:
        ValueError: reward_scale is not 1 and there is no reference.
    """
    if reward_scale == 1.0:
        return (teacher - student).detach()
    if reference is None:
        raise ValueError(f"reward_scale = {reward_scale} needs the reference's log-probs; only 1 does without")
    return (reward_scale * (teacher - reference) - (student - reference)).detach()


class SampledGOPD:
    """The published estimator: -A_t * w_t * log S(y_t), one sampled token a prefix.

    Args:
        importance_weight_cap: Upper bound of the importance weights of the rollout engine against the trainer;
            None trusts the engine to sample from the trainer's own policy (w_t = 1).
    """

    needs = frozenset({"teacher"})

    def __init__(self, importance_weight_cap: float | None = None) -> None:
        self.importance_weight_cap = importance_weight_cap

    def prepare(self, rows: Sequence[Row]) -> None:
        """Nothing to prepare."""

    def __call__(self, student: States, frozen: FrozenScores | None, tokens: Tokens) -> TokenLoss:
        """The loss with gradient through log S only; see `gopd_advantage` for the coefficient."""
        assert frozen is not None
        teacher = frozen.teacher.logprobs_of(tokens.ids)
        reference = frozen.reference.logprobs_of(tokens.ids) if frozen.reference else None

        def factors(logprobs: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
            other = None if reference is None else reference[rows]
            engine = None if tokens.engine_logprobs is None else tokens.engine_logprobs[rows]
            advantage = gopd_advantage(logprobs, teacher[rows], other, frozen.reward_scale)
            return advantage, truncated_importance_weights(logprobs, engine, self.importance_weight_cap)

        def loss(logprobs: Tensor, rows: slice) -> Tensor:
            advantage, weight = factors(logprobs, rows)
            return -advantage * weight * logprobs

        out = logprob_loss(student, tokens.ids, tokens.weights, loss)
        advantage, weight = factors(out.logprobs, slice(None))
        figures = _statistics(out.logprobs, out.entropy, teacher, reference, advantage, weight)
        return TokenLoss(out.total, out.losses, figures)


class FullGOPD:
    """The exact gradient: KL(S || Q) over the whole vocabulary at every visited prefix.

    The prefixes still come from the rollout engine; no weight corrects for them, since the student's term is
    computed live and exactly.
    """

    needs = frozenset({"teacher", "hidden"})

    def prepare(self, rows: Sequence[Row]) -> None:
        """Nothing to prepare."""

    def __call__(self, student: States, frozen: FrozenScores | None, tokens: Tokens) -> TokenLoss:
        """KL(S || Q) in nats; the advantage of the sampled token is reported beside it."""
        assert frozen is not None
        teacher = frozen.teacher.local_states()
        reference = frozen.reference.local_states() if frozen.reference else None
        out = divergence_loss(student, teacher, reference, frozen.reward_scale, tokens.ids, tokens.weights)
        advantage = gopd_advantage(out.student, out.teacher, out.reference, frozen.reward_scale)
        figures = _statistics(out.student, out.entropy, out.teacher, out.reference, advantage, None)
        return TokenLoss(out.total, out.kl, figures)


def _statistics(
    student: Tensor,
    entropy: Tensor,
    teacher: Tensor,
    reference: Tensor | None,
    advantage: Tensor,
    weight: Tensor | None,
) -> dict[str, Tensor]:
    """The detached per-token figures that every estimator reports, absent ones left out."""
    named = {
        "student": student,
        "entropy": entropy,
        "teacher": teacher,
        "reference": reference,
        "advantage": advantage,
        "importance_weight": weight,
    }
    return {name: value.detach() for name, value in named.items() if value is not None}
