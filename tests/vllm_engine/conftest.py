"""The real vLLM on a CPU, built once: the engine on the nano base, and what the trainer says of its samples."""

from pathlib import Path

import pytest
import torch
from gaps import PROMPTS
from transformers import AutoModelForCausalLM

from gopd_lightning.rollouts import Sampling, Vocabulary

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def base():
    """Weights that no test may change."""
    return AutoModelForCausalLM.from_pretrained(ROOT / "assets/nano/base", dtype=torch.float32).train()


@pytest.fixture(scope="session")
def served():
    """One engine for all tests: they sync what they need."""
    from gopd_lightning.rollouts.vllm_engine import VLLMEngine

    return VLLMEngine(max_model_len=256, kv_cache_gib=0.25)


@pytest.fixture
def vocabulary(base):
    return Vocabulary(size=base.config.vocab_size, stop_ids=(1,))


@pytest.fixture
def student(base):
    """A copy to change; its identity is new, so that the engine takes it."""
    lm = AutoModelForCausalLM.from_config(base.config, dtype=torch.float32)
    lm.load_state_dict(base.state_dict())
    return lm.train()


@pytest.fixture
def sample(served, vocabulary):
    """Completions of PROMPTS under seeds 0, 1, 2, ..."""

    def call(prompts=PROMPTS, vocabulary=vocabulary, done=None, **sampling):
        settings = Sampling(**{"max_new_tokens": 24, **sampling})
        return served.generate(prompts, settings, range(len(prompts) * settings.n), vocabulary, done)

    return call
