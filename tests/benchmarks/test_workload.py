"""The same tokens are imposed on `generate` and on gopd's engine."""

import statistics

import pytest
import tiny
import torch
from step_gopd import ImposedEngine
from transformers import AutoModelForCausalLM
from workload import SHORTEST, ImposedTokens, Workload, lengths, prompt_texts

from gopd_lightning.rollouts import Sampling, Vocabulary


@pytest.fixture
def work():
    return Workload(
        texts=["a", "b", "c"],
        prompts=[[5, 6, 7], [8, 9], [10]],
        responses=[[4, 4, 1], [3, 5, 6, 7, 8, 1], [1]],
        end=1,
    )


@pytest.fixture
def model(lm_folder):
    return AutoModelForCausalLM.from_pretrained(lm_folder, dtype=torch.float32)


def test_generate_gives_the_responses(work, model):
    ids = torch.tensor([[5, 6, 7], [0, 8, 9], [0, 0, 10]])
    mask = (ids > 0).long()
    processor = [ImposedTokens(work, ids, mask)]
    out = model.generate(
        ids, attention_mask=mask, do_sample=True, max_new_tokens=6, eos_token_id=1, logits_processor=processor
    )
    found = [row[3:].tolist() for row in out]
    assert [row[: len(ids)] for row, ids in zip(found, work.responses, strict=True)] == work.responses


@pytest.mark.parametrize("limit", [16, 65536])
def test_the_engine_gives_the_responses_whatever_its_batches(work, model, limit):
    engine = ImposedEngine(work, max_batch_tokens=limit)
    engine.sync(model, 0)
    vocabulary = Vocabulary(size=len(tiny.tokenizer()), stop_ids=(1,))
    found = engine.generate(work.prompts[::-1], Sampling(max_new_tokens=6), [7, 2**62, 3], vocabulary)
    assert [completion.ids for completion in found] == work.responses[::-1]
    assert all(completion.finished for completion in found)


def test_responses_that_are_cut_end_all_the_same(work):
    assert work.cut(3).responses == [[4, 4, 1], [3, 5, 1], [1]]


def test_lengths_are_skewed_and_within_their_bounds():
    found = lengths(1000, 256)
    assert min(found) >= SHORTEST
    assert max(found) == 256
    assert 90 < statistics.mean(found) < 100 > statistics.median(found)
    assert found != sorted(found)
    assert lengths(1000, 256) == found


def test_prompts_are_all_different():
    assert len(set(prompt_texts(128))) == 128
