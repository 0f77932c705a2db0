"""A real language model through the real vLLM: SmolLM2-135M-Instruct from its GGUF file, in bfloat16."""

import sys
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
# bfloat16 keeps 8 bits: logits of about 20 are within 0.06 of each other's, and a token's log-prob differs by as much
MEAN, WORST = 0.03, 0.5


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


def gaps(student, completions, prompts):
    """Distances of the engine's log-probs of its own tokens from the trainer's float32 ones."""
    ids = torch.tensor([i for c in completions for i in c.ids])
    with torch.no_grad():
        scores = LocalScorer(student, student.config.vocab_size, 1.0).score(prompts, [c.ids for c in completions])
    return (scores.logprobs_of(ids) - torch.tensor([x for c in completions for x in c.logprobs])).abs()


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
        gap = gaps(student, found, prompts)
        assert (gap.mean() < MEAN, gap.max() < WORST) == (True, True), (gap.mean(), gap.max())
        assert before is None or gaps(student, before, prompts).mean() > 3 * MEAN  # the update is not nothing
        before = found
        change(student, 0.01)
