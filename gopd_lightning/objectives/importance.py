"""Truncated importance weights of the rollout engine's policy against the trainer's."""

from typing import Literal

import torch
from torch import Tensor

Cap = float | Literal["auto"] | None
AUTO_CAP = 5.0  # of the published runs (paper 2602.12125, Tables 4 to 7)


def resolved_cap(cap: Cap, own_engine: bool) -> float | None:
    """The upper bound of importance weights that a setting means.

    Args:
        cap: The bound, None for weights of 1, or "auto".
        own_engine: Whether the rollout engine computes with the trainer's own weights and code; "auto" trusts it then.
    """
    if cap == "auto":
        return None if own_engine else AUTO_CAP
    return cap


def truncated_importance_weights(trainer: Tensor, engine: Tensor | None, cap: float | None) -> Tensor:
    """min(exp(log-prob in the trainer - log-prob in the engine), cap), token by token.

    Capped above only, never normalised, detached: token-level truncated importance sampling as the published
    runs used it (cap 5).

    Args:
        trainer: (N,) log-probs of the sampled tokens in the trainer.
        engine: (N,) log-probs that the engine sampled them with.
        cap: Upper bound; None gives weights of 1.

    Returns:
        Weights (N,) without gradient.

    Raises:
        ValueError: A cap is set and the engine gave no log-probs.
    """
    if cap is None:
        return torch.ones_like(trainer, requires_grad=False).detach()
    if engine is None:
        raise ValueError(
            "the rollout engine returned no log-probs, which importance weights need: set "
            "model.importance_weight_cap=null to trust it"
        )
    return (trainer - engine).detach().clamp(-20.0, 20.0).exp().clamp(max=cap)
