"""Students of other kinds through vLLM: an untied head, an adapter, bfloat16; shapes that vLLM cannot serve."""

import pytest
import torch
from gaps import PROMPTS, change, gap
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from gopd_lightning.errors import InputError
from gopd_lightning.rollouts import Sampling, Vocabulary

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has an environment of its own")
SIZE = 300


def llama(**settings):
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "head_dim": 32, "vocab_size": SIZE + 20, "max_position_embeddings": 256}
    config = LlamaConfig(**{**shape, "initializer_range": 0.2, "tie_word_embeddings": False, **settings})
    return LlamaForCausalLM(config)


def engine(**settings):
    from gopd_lightning.rollouts.vllm_engine import VLLMEngine

    return VLLMEngine(kv_cache_gib=0.1, **settings)


def sampled(served, n=1):
    vocabulary = Vocabulary(size=SIZE, stop_ids=(1,))
    return served.generate(PROMPTS, Sampling(n=n, max_new_tokens=16), range(len(PROMPTS) * n), vocabulary)


def test_an_adapter_is_merged_into_what_vllm_gets_and_not_into_the_student():
    lm = llama()
    before = {name: weight.clone() for name, weight in lm.named_parameters()}
    student = get_peft_model(lm, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    served = engine()
    for version in range(2):
        served.sync(student, version)
        assert gap(student, sampled(served), size=SIZE) < 1e-4
        with torch.no_grad():
            for name, weight in student.named_parameters():
                if ".lora_" in name:
                    weight.mul_(1.5)
    plain = {name.replace(".base_layer", ""): weight for name, weight in lm.named_parameters() if "lora" not in name}
    assert all(torch.equal(plain[name], weight) for name, weight in before.items())


def test_an_untied_head_in_bfloat16_follows_an_update():
    student = llama(initializer_range=0.05).bfloat16()
    student.config.quantization_config = {"quant_method": "gguf"}  # as one read from a GGUF file says
    served = engine()
    served.sync(student, 0)
    change(student)
    served.sync(student, 1)
    exact = llama()
    exact.load_state_dict(student.float().state_dict())
    assert gap(exact, sampled(served), size=SIZE) < 0.1


def test_a_context_that_the_cache_cannot_hold_is_one_line_with_its_reason():
    with pytest.raises(InputError, match="vLLM cannot serve this student"):
        engine(max_model_len=None).sync(llama(max_position_embeddings=1 << 20), 0)


def test_a_head_size_without_a_kernel_is_one_line_with_its_reason():
    with pytest.raises(InputError, match="heads have 24 dimensions"):
        engine().sync(llama(head_dim=24), 0)
