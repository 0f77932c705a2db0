"""S1: sampled-token log-probs of a frozen model for a step's rows, against the machine's rate of matrix products.

SmolLM2-135M's shape with random weights; lognormal responses (quantiles, so that 16 rows are skewed as many are) on
prompts of 32 to 96 tokens, n rows a prompt. Useful work: 2 operations for each parameter of the blocks and each token
that predicts something, prompts counted for every row, and for each parameter of the head and each response token.
Attention's own products are work on top. The rate is that of square products between the turns.
"""

import json
import math
import random
import statistics
from functools import partial
from typing import Any

import torch
from models import smollm2
from side_by_side import in_turns, medians, row, seconds_of, write
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from workload import prompt_texts

from gopd_lightning.models import scoring
from gopd_lightning.models.loading import load_causal_lm
from gopd_lightning.models.scoring import LocalScorer
from gopd_lightning.models.specs import ModelSpec
from gopd_lightning.records import TokenIds

ROWS, MEAN, SPREAD, LONGEST, WORDS = 16, 128, 0.8, 1024, 49152
SQUARE, PRODUCTS = 2048, 8
GOAL = ">= 0.7"


def model(dtype: torch.dtype) -> nn.Module:
    config = LlamaConfig(
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        vocab_size=WORDS,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)


def rows(samples: int) -> tuple[list[TokenIds], list[TokenIds]]:
    """Prompts and responses of random ids, `samples` rows a prompt."""
    chance = random.Random(0)
    normal = statistics.NormalDist(math.log(MEAN) - SPREAD**2 / 2, SPREAD)
    lengths = [min(LONGEST, round(math.exp(normal.inv_cdf((i + 0.5) / ROWS)))) for i in range(ROWS)]
    chance.shuffle(lengths)

    def ids(count: int) -> list[int]:
        return [chance.randrange(WORDS) for _ in range(count)]

    prompts = [ids(32 + 64 * i // (ROWS // samples)) for i in range(ROWS // samples)]
    return [prompt for prompt in prompts for _ in range(samples)], [ids(length) for length in lengths]


def padded(lm: nn.Module, prompts: list[TokenIds], responses: list[TokenIds]) -> Tensor:
    """All rows in one batch as long as the longest; the head sees response positions only."""
    ids, positions = scoring._pad_right(prompts, responses)
    hidden = scoring.plain_trunk(lm, ids).flatten(0, 1)[positions]
    return scoring.TokenScores(scoring.States(hidden, scoring.head_of(lm, WORDS))).logprobs_of(flat(responses))


def gopd(lm: nn.Module, prompts: list[TokenIds], responses: list[TokenIds]) -> Tensor:
    return LocalScorer(lm, WORDS).score(prompts, responses).logprobs_of(flat(responses))


def flat(responses: list[TokenIds]) -> Tensor:
    return torch.tensor([token for response in responses for token in response])


def useful(lm: Any, prompts: list[TokenIds], responses: list[TokenIds]) -> int:
    """Operations that the rows ask for."""
    body = sum(weight.numel() for weight in lm.model.layers.parameters())
    inputs = sum(len(p) + len(r) - 1 for p, r in zip(prompts, responses, strict=True))
    return int(2 * body * inputs + 2 * lm.lm_head.weight.numel() * sum(map(len, responses)))


@torch.no_grad()
def case(lm: nn.Module, samples: int, with_padded: bool) -> dict[str, Any]:
    prompts, responses = rows(samples)
    square = torch.randn(SQUARE, SQUARE).to(next(lm.parameters()).dtype)
    ways = {"products": lambda: [square @ square for _ in range(PRODUCTS)]}
    ways["gopd"] = partial(gopd, lm, prompts, responses)  # type: ignore[assignment]
    seconds = medians(in_turns(ways))
    if with_padded:  # three times as slow, and no goal speaks of it
        seconds["padded"] = seconds_of(partial(padded, lm, prompts, responses))
    rate = 2 * SQUARE**3 * PRODUCTS / seconds.pop("products")
    work = useful(lm, prompts, responses)
    tokens = {"prompt_tokens": sum(map(len, prompts)), "response_tokens": sum(map(len, responses))}
    return {
        **tokens,
        "useful_tflop": round(work / 1e12, 3),
        "products_gflops": round(rate / 1e9, 1),
        "seconds": {way: round(found, 3) for way, found in seconds.items()},
        "share": {way: round(work / found / rate, 3) for way, found in seconds.items()},
    }


@torch.no_grad()
def bfloat16_error() -> dict[str, float]:
    """Difference in log-prob, in nats, between bfloat16 and float32 for SmolLM2-135M's own weights on English text."""
    folder = str(smollm2("student"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer(text)["input_ids"] for text in prompt_texts(16)]
    prompts, responses = [ids[:8] for ids in texts], [ids[8:] for ids in texts]
    exact, rough = (
        gopd(load_causal_lm(ModelSpec(path=folder, dtype=dtype)), prompts, responses)
        for dtype in ("float32", "bfloat16")
    )
    error = (rough - exact).abs()
    figures = {"mean": error.mean(), "largest": error.max(), "bias": (rough - exact).mean(), "logprob": exact.mean()}
    return {"tokens": len(exact), **{name: float(f"{float(value):.3g}") for name, value in figures.items()}}


def main() -> None:
    error = bfloat16_error()
    cases, summary = {}, []
    for dtype in (torch.float32, torch.bfloat16):
        lm = model(dtype)
        for samples in (1, 4):
            name = f"{str(dtype)[6:]}, n={samples}"
            cases[name] = found = case(lm, samples, with_padded=samples == 1)
            print(f"{name}: {json.dumps(found)}", flush=True)
            summary.append(row("S1", f"{name}: of the rate of products", found["share"]["gopd"], "share", GOAL))
    for dtype in ("float32", "bfloat16"):
        seconds = cases[f"{dtype}, n=1"]["seconds"]
        summary.append(row("S1", f"{dtype}, n=1: against one padded batch", seconds["padded"] / seconds["gopd"], "x"))
    summary.append(row("S1", "bfloat16 against float32: mean error of log-probs", error["mean"], "nats"))
    print(write("scoring", {"summary": summary, "rows": ROWS, "cases": cases, "bfloat16_error": error}))


if __name__ == "__main__":
    main()
