"""Truncated importance weights of the rollout engine's policy against the trainer's."""

import torch
from torch import Tensor


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
        raise ValueError("importance_weight_cap is set, but the rollout engine returned no log-probs")
    return (trainer - engine).detach().clamp(-20.0, 20.0).exp().clamp(max=cap)
