"""Reading in slots gives what plain left-padded reading gives; models that it does not suit are read plainly."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from gopd_lightning.attention import UnknownAttentionError
from gopd_lightning.rollouts import Sampling, TransformersEngine, Vocabulary
from gopd_lightning.rollouts.attention import grouped_attention
from gopd_lightning.rollouts.readers import PaddedReader, SlotReader, reads_in_slots

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [4, 4]]
SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 40,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module")
def grouped():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


def windowed(**extra):
    return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=4, **extra)).eval()


def capped():
    config = Gemma2Config(
        **SHAPE, layer_types=["full_attention"] * 2, query_pre_attn_scalar=8, attn_implementation="eager"
    )
    return Gemma2ForCausalLM(config).eval()


def sinks():
    config = GptOssConfig(**SHAPE, layer_types=["full_attention"] * 2, num_local_experts=2, num_experts_per_tok=1)
    return GptOssForCausalLM(config).eval()


def alibi():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}
    return FalconForCausalLM(FalconConfig(**sizes, alibi=True)).eval()


def logits(reader, prompts, n, tokens, order=None, after=0):
    """Logits after each step; only the rows of `order` go on when `after` steps are done."""
    found = []
    with reader.reading():
        reader.join(prompts, n)
        for i, row in enumerate(tokens):
            if order is not None and i == after:
                reader.keep(order)
            found.append(reader.step(row if order is None or i < after else row[order]))
    return found


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 3])
def test_logits_are_those_of_plain_reading_also_after_rows_left(grouped, n):
    tokens = torch.randint(2, 40, (6, 4 * n), generator=torch.Generator().manual_seed(n))
    order = [4 * n - 1, 1, 0]
    found = logits(SlotReader(grouped), PROMPTS, n, tokens, order, 3)
    plain = logits(PaddedReader(grouped), PROMPTS, n, tokens, order, 3)
    assert [len(step) for step in found] == [4 * n] * 3 + [3] * 3
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 2])
def test_what_prompts_begin_with_alike_is_read_once_and_reads_the_same(grouped, n, monkeypatch):
    shared = [2, 3, 4, 5, 6, 7, 8]
    prompts = [[*shared, 9, 10], [*shared, 11], [*shared, 9, 12, 13], shared, [*shared, 11]]
    tokens = torch.randint(2, 40, (4, 5 * n), generator=torch.Generator().manual_seed(n))
    read, forward = [], grouped.forward

    def counting(*args, **kwargs):
        read.append(kwargs["input_ids"].numel())
        return forward(*args, **kwargs)

    monkeypatch.setattr(grouped, "forward", counting)
    slots = SlotReader(grouped, spare=7 * n)
    found = logits(slots, prompts, n, tokens)
    assert read[0] == len(shared) + 2  # last tokens are left to the first step
    torch.testing.assert_close(found, logits(PaddedReader(grouped), prompts, n, tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prompts_that_join_later_read_as_if_they_were_alone(grouped):
    slots, found = SlotReader(grouped, spare=6), []
    with slots.reading():
        slots.join(PROMPTS, 1)
        slots.step(torch.tensor([3, 4, 5, 6]))
        slots.keep([0, 3, 2])
        slots.join([[7, 8, 9, 10]], 1)
        for token in (10, 12, 14):
            found.append(slots.step(torch.tensor([3, 4, 5, token]))[3:])
    alone = logits(PaddedReader(grouped), [[7, 8, 9, 10]], 1, torch.tensor([[10], [12], [14]]))
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_cache_that_grows_past_its_first_block_forgets_nothing(grouped):
    slots = SlotReader(grouped)
    ids = torch.randint(2, 40, (140, 2), generator=torch.Generator().manual_seed(0))
    found = logits(slots, PROMPTS[:2], 1, ids)
    torch.testing.assert_close(found, logits(PaddedReader(grouped), PROMPTS[:2], 1, ids), atol=1e-5, rtol=1e-5)
    assert slots._cache.layers[0].keys.shape[2] == 192  # three blocks, of which 142 columns are filled


@torch.no_grad()
def test_keys_are_written_in_place(grouped):
    slots = SlotReader(grouped)
    with slots.reading():
        slots.join(PROMPTS, 1)
        slots.step(torch.tensor([3, 4, 5, 6]))
        where = slots._cache.layers[0].keys.data_ptr()
        slots.step(torch.tensor([3, 4, 5, 6]))
        slots.keep([0, 3])
        slots.step(torch.tensor([3, 4]))
    assert slots._cache.layers[0].keys.data_ptr() == where


@pytest.mark.parametrize("made", [windowed, capped, sinks, alibi])
@torch.no_grad()
def test_models_with_more_to_their_attention_are_read_plainly(made):
    torch.manual_seed(1)
    model = made()
    before = model.config._attn_implementation
    assert not reads_in_slots(model)
    assert model.config._attn_implementation == before
    engine = TransformersEngine()
    engine.sync(model, 0)
    found = engine.generate(
        PROMPTS, Sampling(temperature=0.0, max_new_tokens=8), range(4), Vocabulary(size=40, stop_ids=())
    )
    for prompt, completion in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([[*prompt, *completion.ids]])
        greedy = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].argmax(-1)
        assert greedy.tolist() == list(completion.ids)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_models_of_full_attention_are_read_in_slots(attention):
    torch.manual_seed(1)
    learned = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=40, n_positions=64, attn_implementation=attention)
    assert reads_in_slots(GPT2LMHeadModel(learned).eval())
    assert reads_in_slots(LlamaForCausalLM(LlamaConfig(**SHAPE)).eval())
    adapted = get_peft_model(LlamaForCausalLM(LlamaConfig(**SHAPE)), LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert reads_in_slots(adapted.eval())


def test_what_attention_does_not_know_is_refused_by_name():
    states = torch.zeros(1, 2, 1, 4)
    with pytest.raises(UnknownAttentionError, match="softcap"):
        grouped_attention(torch.nn.Module(), states, states, states, None, softcap=30.0, sliding_window=None)


def test_the_models_own_attention_is_back_after_sampling_and_after_a_failure(lm_folder):
    model = AutoModelForCausalLM.from_pretrained(lm_folder, attn_implementation="eager")
    engine = TransformersEngine()
    engine.sync(model, 0)
    vocabulary = Vocabulary(size=40, stop_ids=(1,))
    engine.generate([[5, 6]], Sampling(max_new_tokens=3), [0], vocabulary)
    assert model.config._attn_implementation == "eager"

    def fail(row, completion):
        raise KeyboardInterrupt

    model.train()
    with pytest.raises(KeyboardInterrupt):
        engine.generate([[5, 6]], Sampling(max_new_tokens=3), [0], vocabulary, fail)
    assert model.config._attn_implementation == "eager"
    assert model.training
