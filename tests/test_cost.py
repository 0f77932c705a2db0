"""Costs by formula against torch's own count of FLOPs, and against one another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen3Config,
)

from gopd_lightning import cost
from gopd_lightning.cost import Lengths, Member, Models, Rates, Shape, shape_of
from gopd_lightning.records import Completion, Prompt, Row

PROMPT, RESPONSE, ROWS = 24, 17, 3
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,  # four heads of 32 are twice the hidden size, as in small Qwen3 models
    "intermediate_size": 96,
    "vocab_size": 80,
    "attn_implementation": "eager",
}
CONFIGS = {"qwen3": Qwen3Config(**SIZES, tie_word_embeddings=True), "llama": LlamaConfig(**SIZES)}
SHAPE = Shape(body=1000, body_trained=1000, head=300, head_trained=300, attention=16, cache=8)


def model(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).train()


def counted(net: Any, gradient: bool) -> float:
    """FLOPs that torch counts in scoring rows of one prompt length and one response length each."""
    ids = torch.ones(ROWS, PROMPT + RESPONSE - 1, dtype=torch.long)
    with torch.set_grad_enabled(gradient), FlopCounterMode(display=False) as counter:
        logits = net(input_ids=ids, logits_to_keep=RESPONSE, use_cache=False).logits
        if gradient:
            logits.sum().backward()
    return counter.get_total_flops()


def upper_triangle(shape: Shape) -> float:
    """FLOPs of the query-key pairs that eager attention computes and masks."""
    length = PROMPT + RESPONSE - 1
    return shape.attention * ROWS * (length * (length - 1) // 2)


def rows_of() -> list[Lengths]:
    return [Lengths(PROMPT, (RESPONSE,))] * ROWS


@pytest.mark.parametrize("name", CONFIGS)
def test_scoring_costs_what_torch_counts(name):
    net = model(CONFIGS[name])
    shape = shape_of(net, 80)
    expected = cost.scoring_flops(shape, rows_of()) + cost.head_flops(shape, rows_of()) + upper_triangle(shape)
    assert counted(net, gradient=False) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("name", CONFIGS)
def test_training_costs_what_torch_counts(name):
    net = model(CONFIGS[name])
    net.enable_input_require_grads()
    shape = shape_of(net, 80)
    expected = cost.training_flops(shape, rows_of()) + 3 * upper_triangle(shape)
    assert counted(net, gradient=True) == pytest.approx(expected, rel=0.005)


def test_training_an_adapter_costs_what_torch_counts():
    net = get_peft_model(model(CONFIGS["qwen3"]), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    net.enable_input_require_grads()
    shape = shape_of(net, 80)
    assert shape.head_trained == 0
    assert shape.body_trained == sum(p.numel() for p in net.parameters() if p.requires_grad)
    expected = cost.training_flops(shape, rows_of()) + 3 * upper_triangle(shape)
    assert counted(net, gradient=True) == pytest.approx(expected, rel=0.01)


def test_embeddings_are_no_matrix_product_and_a_tied_head_is_one():
    net = model(CONFIGS["qwen3"])
    shape = shape_of(net, 80)
    norms = sum(p.numel() for p in net.parameters() if p.ndim == 1)
    assert shape.head == 80 * 64
    assert shape.body + shape.head + norms == sum(p.numel() for p in net.parameters())


def test_padding_rows_of_the_head_do_not_count():
    assert shape_of(model(CONFIGS["llama"]), 70).head == 70 * 64


def test_only_the_adapter_in_force_counts(tmp_path: Path):
    base = model(CONFIGS["llama"])
    plain = shape_of(base, 80).body
    net: Any = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2), adapter_name="small")
    net.add_adapter("large", LoraConfig(task_type="CAUSAL_LM", r=4))
    assert isinstance(net, PeftModel)
    extra = {}
    for name in ("small", "large"):
        net.set_adapter(name)
        extra[name] = shape_of(net, 80).body - plain
    assert extra["small"] > 0
    assert extra["large"] == 2 * extra["small"]
    with net.disable_adapter():
        assert shape_of(net, 80).body == plain


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(**SIZES, num_local_experts=2),
        Gemma2Config(**SIZES, sliding_window=8),
        LlamaConfig(**SIZES, layer_types=["full_attention", "chunked_attention"] * 2),
    ],
    ids=["experts", "sliding window", "chunks"],
)
def test_models_whose_cost_is_not_in_their_shapes_are_unknown(config):
    assert shape_of(model(config), 80) is None


def test_a_prompt_is_read_once_for_its_samples():
    apart = [Lengths(30, (7,)), Lengths(30, (11,))]
    together = [Lengths(30, (7, 11))]
    alone = [Lengths(30, (1,))]  # a response of one token is not read
    for flops in (cost.scoring_flops, lambda shape, rows: cost.training_flops(shape, rows) - head(shape, rows)):
        assert flops(SHAPE, together) == flops(SHAPE, apart) - flops(SHAPE, alone)
    assert cost.head_flops(SHAPE, together) == cost.head_flops(SHAPE, apart) == 2 * 300 * 18


def head(shape: Shape, rows: list[Lengths]) -> float:
    return 3 * cost.head_flops(shape, rows)


def test_what_prompts_begin_with_alike_is_read_once():
    prompts = [[1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 4], [6]]
    rows = [
        Row(
            prompt=Prompt(uid=i, domain="math", dataset="math", text="", ids=ids),
            completion=Completion(ids=[9] * 3, finished=True),
        )
        for i, ids in enumerate(prompts)
    ]
    found = cost.lengths_of(rows)
    assert found == [(4, (3,), 0), (4, (3,), 4), (3, (3,), 2), (1, (3,), 0)]
    tokens = 4 + 1 + 1 + 4 * 2
    assert cost.scoring_flops(Shape(1000, 0, 0, 0, 0, 0), found) == 2000 * tokens
    lone = cost.scoring_flops(SHAPE, [Lengths(4, (3,))])
    again = cost.scoring_flops(SHAPE, [Lengths(4, (3,), 4)])
    assert lone - again == cost.scoring_flops(SHAPE, [Lengths(4, (1,))])


def test_generating_takes_the_flops_of_scoring_where_bytes_are_free():
    rows = [Lengths(30, (7,)), Lengths(12, (1,)), Lengths(50, (40,))]
    work = cost.generation(Member(SHAPE, torch.float32, Rates(1e9, float("inf"))), rows)
    assert work.limit_s == work.matmul_s
    assert work.matmul_s == pytest.approx((cost.scoring_flops(SHAPE, rows) + cost.head_flops(SHAPE, rows)) / 1e9)


def test_generating_reads_all_weights_and_the_active_caches_in_every_pass_where_flops_are_free():
    rows = [Lengths(10, (3, 2))]
    work = cost.generation(Member(SHAPE, torch.bfloat16, Rates(float("inf"), 1.0)), rows)
    passes, keys = 3, (11 + 11) + 12  # the prompt, then both samples, then the longer one
    assert work.matmul_s == 0
    assert work.limit_s == 2 * (passes * 1300 + 8 * keys)


def test_heads_of_frozen_models_count_where_they_run_and_the_optimizer_moves_bytes():
    member = Member(SHAPE, torch.float32, Rates(1.0, 10.0))
    rows = {"student": [Lengths(10, (5,))], "teacher": [Lengths(12, (5,))]}
    models = Models(member, member, {"teacher": member}, optimizer_bytes=280)
    inside = cost.step_work(models, rows, sampled=False, heads_in_scoring=True)
    outside = cost.step_work(models, rows, sampled=False, heads_in_scoring=False)
    head = cost.head_flops(SHAPE, rows["teacher"])
    assert inside["score"].matmul_s - outside["score"].matmul_s == head
    assert outside["train"].matmul_s - inside["train"].matmul_s == head
    assert inside["train"].limit_s - inside["train"].matmul_s == 28
    assert inside["rollout"] == (0, 0)
    assert cost.step_work(models, rows, sampled=True, heads_in_scoring=True)["rollout"].limit_s > 0
