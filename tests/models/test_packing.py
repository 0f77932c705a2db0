"""Packed rows: each scores as it does alone, whatever stands beside it; models that cannot pack are padded."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from gopd_lightning.attention import UnknownAttentionError
from gopd_lightning.lines import Line
from gopd_lightning.models.packing import packed_trunk, packs
from gopd_lightning.models.scoring import LocalScorer, by_length

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "head_dim": 16,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
PACKED = ["llama", "qwen2", "qwen3", "mistral", "phi3", "olmo2", "smollm3", "granite", "gpt_neox", "gpt2"]
PADDED = ["gemma2", "lfm2", "mamba", "falcon_h1"]
# prompt 0 three times and apart, a response of one token, a row longer than a sliding window of 8
PROMPTS = [[4, 5, 6], [7, 8], [4, 5, 6], [9, 10, 11, 12], [4, 5, 6], [7, 8]]
RESPONSES = [[13, 1], [14, 15, 16, 1], [17, 18, 1], list(range(20, 32)), [19], [33, 34]]


def model(kind, **more):
    torch.manual_seed(0)
    given = SHAPE | more
    if kind == "gpt2":
        given = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
    if kind == "falcon_h1":
        given |= {"mamba_d_ssm": 32, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}
    if kind == "lfm2":
        given |= {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**given)).eval()


def alone(lm, prompts, responses):
    found = []
    for prompt, response in zip(prompts, responses, strict=True):
        hidden = lm.base_model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).last_hidden_state[0]
        found.append(hidden[len(prompt) - 1 : -1])
    return torch.cat(found)


def scored(lm, prompts=PROMPTS, responses=RESPONSES):
    return LocalScorer(lm, 64).score(prompts, responses).local_states().hidden


@pytest.mark.parametrize("kind", PACKED)
@torch.no_grad()
def test_packed_rows_score_as_each_does_alone(kind):
    lm = model(kind)
    torch.testing.assert_close(scored(lm), alone(lm, PROMPTS, RESPONSES), atol=1e-5, rtol=1e-5)
    assert packs(lm)  # nothing was refused on the way
    assert lm.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", PADDED)
@torch.no_grad()
def test_models_that_cannot_pack_are_padded(kind):
    lm = model(kind)
    torch.testing.assert_close(scored(lm), alone(lm, PROMPTS, RESPONSES), atol=1e-5, rtol=1e-5)
    assert not packs(lm)


@torch.no_grad()
def test_a_window_shorter_than_a_row_is_padded_and_a_longer_one_packed():
    for window, packed in ((8, False), (64, True)):
        lm = model("mistral", sliding_window=window)
        torch.testing.assert_close(scored(lm), alone(lm, PROMPTS, RESPONSES), atol=1e-5, rtol=1e-5)
        assert packs(lm) is packed


SHARED = [[4, 5, 6, 7, 8], [4, 5, 6, 9], [4, 5, 6, 7, 10], [11, 12], [4, 5, 6, 7, 8], [4, 5, 6, 9, 13]]


@torch.no_grad()
def test_rows_that_share_a_beginning_score_as_each_does_alone():
    lm = model("qwen3")
    torch.testing.assert_close(scored(lm, SHARED), alone(lm, SHARED, RESPONSES), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompts", [PROMPTS, SHARED])
def test_gradients_are_those_of_the_rows_alone(prompts):
    lm = model("qwen3")
    weight = torch.randn(sum(map(len, RESPONSES)), 32)
    gradients = []
    for forward in (scored, alone):
        lm.zero_grad()
        (forward(lm, prompts, RESPONSES) * weight).sum().backward()
        gradients.append([p.grad.clone() for p in lm.base_model.parameters()])
    for packed, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, plain, atol=1e-4, rtol=1e-4)


def test_recomputed_activations_are_not_packed():
    lm = model("qwen3").train()
    lm.gradient_checkpointing_enable()
    assert not packs(lm)
    with torch.no_grad():
        assert packs(lm)


@torch.no_grad()
def test_rows_beside_one_another_do_not_matter(monkeypatch):
    lm = model("llama")
    whole = scored(lm)
    monkeypatch.setattr("gopd_lightning.models.scoring.LINE_TOKENS", 10)
    torch.testing.assert_close(scored(lm), whole, atol=1e-5, rtol=1e-5)


def test_padded_lots_hold_rows_of_like_length():
    lots = by_length(PROMPTS, RESPONSES, 12)
    assert lots == [[4, 5], [0, 1], [2], [3]]


@pytest.mark.parametrize("kind", ["gemma2", "lfm2"])
@torch.no_grad()
def test_a_refused_model_gets_its_attention_back(kind):
    lm = model(kind)
    with pytest.raises(UnknownAttentionError):
        packed_trunk(lm, Line(PROMPTS))
    assert lm.config._attn_implementation == "sdpa"


def test_attention_with_a_gradient_is_float32_also_under_autocast(monkeypatch):
    lm, seen, attended = model("qwen3"), [], Line.attended

    def noting(self, *states):
        out = attended(self, *states)
        seen.append(out.dtype)
        return out

    monkeypatch.setattr(Line, "attended", noting)
    with torch.autocast("cpu", torch.bfloat16):
        scored(lm).sum().backward()
        with torch.no_grad():
            scored(lm)
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2
