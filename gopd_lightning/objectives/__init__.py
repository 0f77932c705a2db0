"""Objectives: pure functions and small classes on tensors, usable without any trainer."""

from gopd_lightning.objectives.aggregation import AGGREGATIONS, token_weights
from gopd_lightning.objectives.gopd import FullGOPD, SampledGOPD, gopd_advantage
from gopd_lightning.objectives.grpo import GRPOObjective, grpo_advantages
from gopd_lightning.objectives.importance import truncated_importance_weights
from gopd_lightning.objectives.likelihood import Likelihood
from gopd_lightning.objectives.protocol import FrozenScores, Objective, TokenLoss, Tokens

__all__ = [
    "AGGREGATIONS",
    "FrozenScores",
    "FullGOPD",
    "GRPOObjective",
    "Likelihood",
    "Objective",
    "SampledGOPD",
    "TokenLoss",
    "Tokens",
    "gopd_advantage",
    "grpo_advantages",
    "token_weights",
    "truncated_importance_weights",
]
