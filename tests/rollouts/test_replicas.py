"""Sampling in another dtype than the student's: the copy follows the student, and the student stays as it is."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from gopd_lightning.rollouts import Sampling, TransformersEngine, Vocabulary

PROMPTS = [[5, 6, 7, 8], [9, 10]]
SAMPLING = Sampling(temperature=0.0, max_new_tokens=6)
VOCABULARY = Vocabulary(size=39, stop_ids=())


@pytest.fixture
def lm(lm_folder):
    return AutoModelForCausalLM.from_pretrained(lm_folder)


def greedy(engine):
    return [list(completion.ids) for completion in engine.generate(PROMPTS, SAMPLING, [0, 1], VOCABULARY)]


def changed(lm):
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("slept", [False, True])
def test_a_copy_in_bfloat16_follows_the_student(lm, slept):
    engine = TransformersEngine(dtype="bfloat16")
    engine.sync(lm, 0)
    before = greedy(engine)
    changed(lm)
    assert greedy(engine) == before  # not before the next sync
    if slept:
        engine.sleep()
        engine.wake()
    engine.sync(lm, 1)
    fresh = TransformersEngine(dtype="bfloat16")
    fresh.sync(lm, 0)
    assert greedy(engine) == greedy(fresh) != before


def test_only_parameters_are_recast_and_ties_are_kept(lm):
    engine = TransformersEngine(dtype="bfloat16")
    engine.sync(lm, 0)
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in engine._model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in engine._model.buffers()} == {torch.float32}  # rotary frequencies
    assert engine._model.lm_head.weight is engine._model.model.embed_tokens.weight
    engine.sleep()
    assert engine._model is None


def test_log_probs_of_the_copy_are_the_students_to_bfloat16s_precision(lm):
    plain, half = TransformersEngine(), TransformersEngine(dtype="bfloat16")
    plain.sync(lm, 0)
    half.sync(lm, 0)
    sampling = Sampling(max_new_tokens=1)
    seeds = list(range(200))
    pairs = zip(
        plain.generate(PROMPTS * 100, sampling, seeds, VOCABULARY),
        half.generate(PROMPTS * 100, sampling, seeds, VOCABULARY),
        strict=True,
    )
    gaps = [abs(a.logprobs[0] - b.logprobs[0]) for a, b in pairs if a.ids == b.ids]
    assert len(gaps) > 150
    assert 0 < max(gaps) < 0.2


def test_a_student_of_that_dtype_already_is_not_copied(lm):
    engine = TransformersEngine(dtype="float32")
    engine.sync(lm, 0)
    assert engine._model is lm


def test_an_adapted_student_is_recast_with_its_adapter(lm):
    student = get_peft_model(lm, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    engine = TransformersEngine(dtype="bfloat16")
    engine.sync(student, 0)
    adapted = greedy(engine)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    engine.sync(student, 1)
    assert greedy(engine) != adapted
