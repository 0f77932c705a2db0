"""Weighted losses of tokens whose gradients are made in the forward pass.

A chunk of logits goes through the head once; its part of the loss and the gradients of hidden states and head are
finished before the next chunk overwrites it. That is three matrix products where recomputing the logits in the
backward pass takes four, and one buffer of logits. The price: every token's weight in the step's loss must be known
beforehand, and what comes back can be differentiated once.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gopd_lightning.logprobs import Columns, Head, States, blocks_of, entropy_of, logits_in_chunks, pick

LossRule = Callable[[Tensor, slice], Tensor]
_BlockRule = Callable[[list[Tensor], slice], tuple[Tensor, list[Tensor]]]


class LogprobLoss(NamedTuple):
    """A weighted sum with gradient, and the figures of each token (N,) without.

    Attributes:
        total: The sum of losses times weights, a scalar.
        losses: The losses.
        logprobs: Log-probs of the sampled tokens.
        entropy: Entropies of the distributions that they came from, in nats.
    """

    total: Tensor
    losses: Tensor
    logprobs: Tensor
    entropy: Tensor


class DivergenceLoss(NamedTuple):
    """A weighted sum with gradient in the student, and the figures of each token (N,) without.

    Attributes:
        total: The sum of divergences times weights, a scalar.
        kl: KL(S || Q) in nats.
        student: Log-probs of the sampled tokens under S.
        entropy: Entropies of S, in nats.
        teacher: Log-probs of the sampled tokens under T.
        reference: The same under R; None when reward_scale is 1.
    """

    total: Tensor
    kl: Tensor
    student: Tensor
    entropy: Tensor
    teacher: Tensor
    reference: Tensor | None


def logprob_loss(states: States, ids: Tensor, weights: Tensor, loss: LossRule) -> LogprobLoss:
    """A loss that looks at the student through the log-probs of the sampled tokens only.

    Args:
        states: The student's hidden states (N, H), with gradient, and head.
        ids: (N,) sampled token ids.
        weights: (N,) weight of each token's loss in the sum.
        loss: Gives the losses (n,) of some tokens from their log-probs (n,), which carry gradient, and their
            place in the batch; each token's loss may depend on its own log-prob alone.

    Returns:
        The sum and the figures of each token.
    """

    def block(logits: list[Tensor], rows: slice) -> tuple[Tensor, list[Tensor]]:
        log_p, p = logits[0].log_softmax(-1), logits[0].softmax(-1)  # exp takes a CPU twice as long as softmax
        picked = pick(log_p, ids[rows])
        entropy = entropy_of(p, log_p)
        losses, slope = _slope(loss, picked, rows)
        slope = (slope * weights[rows])[:, None]
        gradient = p.mul_(-slope).scatter_add_(1, ids[rows, None], slope)
        return gradient, [losses, picked, entropy]

    total, losses, logprobs, entropy = _summed(states, [], weights, block)
    return LogprobLoss(total, losses, logprobs, entropy)


def divergence_loss(
    student: States, teacher: States, reference: States | None, reward_scale: float, ids: Tensor, weights: Tensor
) -> DivergenceLoss:
    """KL(S || Q) over the whole vocabulary, Q = softmax(lambda * log T + (1 - lambda) * log R).

    Its gradient is the expectation of the sampled estimator's (paper 2602.12125, Eq. 14; the normalisers of T
    and R cancel in the softmax, so their logits serve as log-probs). The three models may differ in hidden size.

    Args:
        student: Hidden states (N, H_s), with gradient, and head.
        teacher: Hidden states (N, H_t) and head over the same real vocabulary.
        reference: Hidden states (N, H_r) and head; not read, and may be None, when reward_scale is 1.
        reward_scale: lambda.
        ids: (N,) sampled token ids, for the log-probs that are reported beside the divergence.
        weights: (N,) weight of each token's divergence in the sum.

    Returns:
        The sum, differentiable in the student only, and the figures of each token.
    """
    extrapolate = reference is not None and reward_scale != 1.0
    frozen = [teacher, reference] if reference is not None and extrapolate else [teacher]

    def block(logits: list[Tensor], rows: slice) -> tuple[Tensor, list[Tensor]]:
        log_p, p = logits[0].log_softmax(-1), logits[0].softmax(-1)
        others = [each.log_softmax(-1) for each in logits[1:]]
        picked = [pick(each, ids[rows]) for each in (log_p, *others)]
        entropy = entropy_of(p, log_p)
        gap = log_p.sub_(_target(others, reward_scale))
        kl = (p * gap).sum(-1)
        gradient = gap.sub_(kl[:, None]).mul_(p).mul_(weights[rows, None])
        return gradient, [kl, entropy, *picked]

    total, kl, entropy, sampled, *others = _summed(student, frozen, weights, block)
    return DivergenceLoss(total, kl, sampled, entropy, others[0], others[1] if extrapolate else None)


def _target(frozen: list[Tensor], reward_scale: float) -> Tensor:
    """Log Q (n, V) from those of the teacher and, unless lambda is 1, the reference."""
    return frozen[0] if len(frozen) == 1 else torch.lerp(frozen[1], frozen[0], reward_scale).log_softmax(-1)


def _slope(loss: LossRule, logprobs: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Losses (n,) and the derivative (n,) of each by its own log-prob."""
    with torch.enable_grad():
        given = logprobs.detach().requires_grad_()
        losses = loss(given, rows)
        (slope,) = torch.autograd.grad(losses.sum(), given)
    return losses.detach(), slope


def _summed(student: States, frozen: Sequence[States], weights: Tensor, block: _BlockRule) -> tuple[Tensor, ...]:
    """The weighted sum with gradient, and the figures without, of a block rule whose first figure is the loss."""
    head = student.head
    out: tuple[Tensor, ...] = _GradientInForward.apply(  # type: ignore[no-untyped-call]
        student.hidden, head.weight, head.bias, head, frozen, weights, block
    )
    return out


class _GradientInForward(torch.autograd.Function):
    """Runs a block rule over all tokens and keeps the gradients of hidden states, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        settings: Head,
        frozen: Sequence[States],
        weights: Tensor,
        block: _BlockRule,
    ) -> tuple[Tensor, ...]:
        """The weighted sum of the rule's first figure, then all its figures (N,)."""
        student = _cast(hidden, weight, bias, settings)
        models = [student, *frozen]
        made = _Gradients(student, weight.dtype, ctx.needs_input_grad)
        columns = Columns(len(hidden))
        for rows, chunk in logits_in_chunks(models):
            for part, products in blocks_of(rows, chunk):
                shaped = [model.head.shaped(each) for model, each in zip(models, products, strict=True)]
                gradient, found = block(shaped, part)
                columns.put(part, found)
                products[0].copy_(student.head.pull_back(gradient, products[0]))
            made.add(rows, chunk[0])
        ctx.mark_non_differentiable(*columns.all)
        ctx.gradients, ctx.hidden_dtype = made, hidden.dtype
        return (columns.all[0] * weights).sum(), *columns.all

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients made in the forward pass, times that of the sum.

        Raises:
            RuntimeError: A second backward pass through the same loss.
        """
        made, ctx.gradients = ctx.gradients, None
        if made is None:
            raise RuntimeError("a loss whose gradient is made in the forward pass can be differentiated once only")
        hidden, weight, bias = made.times(outer[0])
        return None if hidden is None else hidden.to(ctx.hidden_dtype), weight, bias, None, None, None, None


class _Gradients:
    """The gradients of the student's hidden states (N, H), weight (V, H) and bias (V,), where they are wanted.

    Those of weight and bias have the parameters' own dtype, whatever dtype is computed in.
    """

    def __init__(self, student: States, dtype: torch.dtype, wanted: Sequence[bool]) -> None:
        self.student = student
        weight, bias = student.head.weight, student.head.bias
        self.hidden = torch.empty_like(student.hidden) if wanted[0] else None
        self.weight = torch.empty_like(weight, dtype=dtype) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=dtype) if bias is not None and wanted[2] else None

    def add(self, rows: slice, gradient: Tensor) -> None:
        """Add what one chunk's gradient by its products (n, V) gives."""
        if self.hidden is not None:
            torch.mm(gradient, self.student.head.weight, out=self.hidden[rows])
        if self.weight is not None:
            self._add_weight(rows, gradient)
        if self.bias is not None:
            self.bias += gradient.sum(0)

    def times(self, factor: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients scaled in place; a factor of 1, which the CPU can tell for nothing, changes none."""
        found = (self.hidden, self.weight, self.bias)
        if factor.device.type == "cpu" and float(factor) == 1.0:
            return found
        return tuple(None if each is None else each.mul_(factor) for each in found)  # type: ignore[return-value]

    def _add_weight(self, rows: slice, gradient: Tensor) -> None:
        assert self.weight is not None
        hidden = self.student.hidden[rows]
        if self.weight.dtype != gradient.dtype:  # autocast: float32 parameters, bfloat16 products
            part = gradient.t() @ hidden
            self.weight.copy_(part) if rows.start == 0 else self.weight.add_(part)
        elif rows.start == 0:
            torch.mm(gradient.t(), hidden, out=self.weight)
        else:
            self.weight.addmm_(gradient.t(), hidden)


def _cast(hidden: Tensor, weight: Tensor, bias: Tensor | None, settings: Head) -> States:
    """The student in the dtype that its products are computed in: autocast's where it is on."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    head = Head(
        weight=weight.to(dtype),
        bias=None if bias is None else bias.to(dtype),
        softcap=settings.softcap,
        temperature=settings.temperature,
    )
    return States(hidden.to(dtype), head)
