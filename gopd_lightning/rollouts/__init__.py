"""Rollouts: the engine protocol, sampling, and the engines behind it."""

from gopd_lightning.rollouts.engine import RolloutEngine, Sampling, Vocabulary
from gopd_lightning.rollouts.rows import grade, sample_pairs, sample_rows
from gopd_lightning.rollouts.transformers_engine import TransformersEngine, is_trainers_own
from gopd_lightning.rollouts.vllm_engine import VLLMEngine
from gopd_lightning.rollouts.vllm_server import VLLMServerEngine

__all__ = [
    "RolloutEngine",
    "Sampling",
    "TransformersEngine",
    "VLLMEngine",
    "VLLMServerEngine",
    "Vocabulary",
    "grade",
    "is_trainers_own",
    "sample_pairs",
    "sample_rows",
]
