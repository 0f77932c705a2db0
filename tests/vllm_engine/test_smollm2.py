"""A real language model through the real vLLM: SmolLM2-135M-Instruct from its GGUF file, in bfloat16."""

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from gaps import change
from transformers import AutoTokenizer

from gopd_lightning.models import ModelSpec
from gopd_lightning.models.loading import load_causal_lm
from gopd_lightning.models.scoring import LocalScorer
from gopd_lightning.rollouts import Sampling, Vocabulary

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has an environment of its own")
ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
QUESTIONS = ("What is 12 + 30?", "Name three colours.", "Write a Python function that doubles a number.")


@pytest.fixture(scope="module")
def folder():
    from models import smollm2

    return smollm2("student")


@pytest.fixture(scope="module")
def prompts(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chats = [[{"role": "user", "content": text}] for text in QUESTIONS]
    return [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True).input_ids for chat in chats
    ]


@torch.no_grad()
def scored(student, completions, prompts):
    """The trainer's log-probs of an engine's tokens."""
    scores = LocalScorer(student, student.config.vocab_size, 1.0).score(prompts, [c.ids for c in completions])
    return scores.logprobs_of(torch.tensor([i for c in completions for i in c.ids]))


def gaps(student, completions, prompts):
    """Distances of the engine's log-probs of its own tokens from the trainer's float32 ones."""
    return (scored(student, completions, prompts) - torch.tensor([x for c in completions for x in c.logprobs])).abs()


def rounding(student, completions, prompts):
    """What bfloat16 alone does to the trainer's log-probs, the mean distance."""
    rough = scored(deepcopy(student).bfloat16(), completions, prompts)
    return (rough - scored(student, completions, prompts)).abs().mean()


@pytest.mark.timeout(400)
def test_logprobs_of_smollm2_are_transformers_before_and_after_an_update(folder, prompts):
    from gopd_lightning.rollouts.vllm_engine import VLLMEngine

    student = load_causal_lm(ModelSpec(path=str(folder)))
    engine = VLLMEngine(dtype="bfloat16", max_model_len=256, kv_cache_gib=0.5)
    vocabulary = Vocabulary(size=student.config.vocab_size, stop_ids=(2,))
    sampling = Sampling(max_new_tokens=48)
    before = None
    for version in range(2):
        engine.sync(student, version)
        found = engine.generate(prompts, sampling, range(len(prompts)), vocabulary)
        gap, noise = gaps(student, found, prompts), rounding(student, found, prompts)
        assert gap.mean() < 1.5 * noise < 0.15
        assert gap.max() < 0.5
        assert before is None or gaps(student, before, prompts).mean() > 3 * noise  # the update is not nothing
        before = found
        change(student, 0.01)
